"""Sixty faults, from one seed: no trial is lost or doubled, and no file is lost."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.schedules import KINDS, make_schedule
from tests.conftest import ROOT


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sixty_faults_break_no_promise(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.chaos", "--faults", "60", "--seed", "0"]
    ran = subprocess.run(
        [*command, "--folder", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_seed_makes_the_same_schedule() -> None:
    assert make_schedule(7) == make_schedule(7)
    assert make_schedule(7) != make_schedule(8)


def test_sixty_faults_have_every_kind() -> None:
    drawn: Counter[str] = Counter()
    seed = 0
    while drawn.total() < 60:
        drawn.update(fault.kind for fault in make_schedule(seed).faults)
        seed += 1

    assert set(drawn) == set(KINDS)


def test_schedule_draws_only_the_given_kinds() -> None:
    for kind in KINDS:
        assert {fault.kind for fault in make_schedule(3, [kind]).faults} == {kind}
