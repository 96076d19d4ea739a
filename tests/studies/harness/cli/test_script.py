"""Entry point of the scripts: what --help imports, and the flags that reproduce arguments."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from makemore.cli import parse_args
from studies.harness.cli.args import StudyArgs
from studies.harness.cli.script import (
    clean_stop,
    collect_as_usual,
    given_flags,
    run_script,
    uninterrupted,
)
from studies.harness.store.study import load_study
from tests.conftest import ROOT

HEAVY = ("torch", "numba", "mlflow", "optuna", "pandas")


@dataclass(kw_only=True)
class Args(StudyArgs):
    narrow: bool = False
    width: int | None = 7
    rule: str = "basin"


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.mark.parametrize("script", ["mlp", "record", "lr_sweep"])
def test_help_imports_nothing_heavy(script: str, tmp_path: Path) -> None:
    program = f"""
import runpy, sys
sys.argv = ["{script}.py", "--help"]
try:
    runpy.run_path({str(ROOT / "studies" / f"{script}.py")!r}, run_name="__main__")
finally:
    print("heavy:", [name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""
    ran = run("-c", program, cwd=tmp_path)

    assert ran.returncode == 0 and "--trials" in ran.stdout
    assert ran.stderr.splitlines() == ["heavy: []"]


def test_copied_script_names_its_own_study(names: Path, workdir: Path) -> None:
    shutil.copy(ROOT / "studies" / "mlp.py", workdir / "mine.py")
    flags = "--names names.txt --trials 2 --steps 20 --repeats 0 --device cpu".split()

    ran = run("mine.py", *flags, cwd=workdir)

    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.splitlines()[0] == "Study mine: 2 trials of 20 steps."
    study = load_study("mine", None)
    assert len(study.trials) == 2
    # The script is found again from the project's folder.
    assert (ROOT / study.user_attrs["script"]).resolve() == (workdir / "mine.py").resolve()
    assert "mine.py --study mine" in (workdir / "mlruns/reports/mine.html").read_text()


def test_mistyped_field_of_the_base_is_one_sentence(tmp_path: Path) -> None:
    source = (ROOT / "studies" / "mlp.py").read_text()
    (tmp_path / "mine.py").write_text(source.replace("optimizer=", "optimzer=", 1))
    line = next(i for i, text in enumerate(source.splitlines(), 1) if text.startswith("BASE"))

    ran = run("mine.py", "--trials", "1", cwd=tmp_path)

    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.endswith(
        f"mine.py, line {line}: optimzer is not a field of Config; did you mean optimizer.\n"
    )
    assert len(ran.stderr.splitlines()) == 1 and not (tmp_path / "mlruns").exists()


def test_flags_reproduce_the_arguments() -> None:
    args = Args(
        names=Path("my words.txt"),
        narrow=True,
        width=None,
        rule="tenth",
        prune=False,
        seed=0,
        steps=9,
        json=True,
        range=("lr=0.1:1", "batch_size=32,64"),
    )
    flags = given_flags(args, exclude={"json"})

    assert parse_args(Args, [*flags, "--json"]) == args
    assert given_flags(Args(), exclude=()) == []
    # Flags with their default value are left out.
    assert "--repeats" not in flags and "--json" not in flags


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_calls_interrupt(number: signal.Signals) -> None:
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    calls: list[int] = []
    try:
        with clean_stop(lambda: calls.append(1)):
            os.kill(os.getpid(), number)
        assert calls == [1]
        # Another signal must not disturb the interpreter's exit.
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def test_outside_of_a_script_only_the_first_interrupt_is_caught() -> None:
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    calls: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        with clean_stop(lambda: calls.append(1), in_script=False):
            assert signal.getsignal(signal.SIGTERM) == before[signal.SIGTERM]
            os.kill(os.getpid(), signal.SIGINT)
            assert calls == [1]
            os.kill(os.getpid(), signal.SIGINT)

    assert calls == [1]
    assert {signum: signal.getsignal(signum) for signum in before} == before


def test_held_interrupt_takes_effect_after_the_block() -> None:
    before = signal.getsignal(signal.SIGINT)
    done = False
    with pytest.raises(KeyboardInterrupt):
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            done = True

    assert done and signal.getsignal(signal.SIGINT) == before
    with uninterrupted(in_script=True):
        assert signal.getsignal(signal.SIGINT) == before


def test_handlers_return_after_a_block_without_signals() -> None:
    before = signal.getsignal(signal.SIGINT)
    with clean_stop(lambda: None):
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_signals_stay_as_they_are_in_other_threads() -> None:
    before, found = signal.getsignal(signal.SIGINT), []

    def look() -> None:
        with clean_stop(lambda: None):
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [before]


# ---- garbage


@pytest.fixture
def collector() -> Iterator[None]:
    """Restore the garbage collector's settings."""
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def test_garbage_is_looked_for_seldom_until_the_imports_are_done(
    collector: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = gc.get_threshold()
    seen = []

    def run(args: Args) -> int:
        seen.append(gc.get_threshold())
        collect_as_usual()
        seen.append(gc.get_threshold())
        return 0

    monkeypatch.setattr(sys, "argv", ["x.py"])
    with pytest.raises(SystemExit):
        run_script(Args, run)

    assert seen == [(100_000, *usual[1:]), usual]
    assert gc.get_freeze_count() > 1000


def test_garbage_settings_of_another_program_stay(collector: None) -> None:
    gc.set_threshold(500, 5, 5)
    frozen = gc.get_freeze_count()
    collect_as_usual()
    assert (gc.get_threshold(), gc.get_freeze_count()) == ((500, 5, 5), frozen)
