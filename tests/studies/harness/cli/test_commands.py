"""Proposed commands: from a checkout, and from an installed package."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from studies.harness.cli import commands
from studies.harness.cli.args import StudyArgs
from tests.conftest import ROOT


def words(script: str, *arguments: str) -> list[str]:
    """Return the words of a proposed command after the interpreter."""
    return shlex.split(commands.shell_command(script, list(arguments)))[1:]


def test_checkout_proposes_the_path_of_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert words("studies/ui.py", "my study") == ["studies/ui.py", "my study"]
    monkeypatch.chdir(ROOT / "docs")
    assert words("studies/ui.py") == ["../studies/ui.py"]


@pytest.mark.parametrize("package", ["studies", "experiments"])
def test_installed_package_proposes_the_module(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str
) -> None:
    monkeypatch.setattr(commands, "ROOT", tmp_path / "site-packages")
    assert words(f"{package}/ui.py", "mlp") == ["-m", f"{package}.ui", "mlp"]


def test_users_own_script_keeps_its_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "ROOT", tmp_path / "lib" / "site-packages")
    assert words("../../mine.py", "--trials", "2") == ["mine.py", "--trials", "2"]


@pytest.mark.parametrize(
    ("given", "flags"),
    [
        ({}, []),
        ({"storage": "a.journal"}, ["--storage", "a.journal"]),
        ({"tracking_uri": "http://me:secret@host"}, ["--tracking-uri", "http://me:***@host"]),
    ],
)
def test_store_flags_lead_to_the_same_stores(given: dict[str, Any], flags: list[str]) -> None:
    assert commands.store_flags(StudyArgs(**given)) == flags


def test_store_flags_leave_out_the_storage_on_request() -> None:
    assert commands.store_flags(StudyArgs(storage="a.journal"), storage=False) == []


# ---- Python lines


def test_flags_become_arguments_of_search() -> None:
    flags = "--trials 64 --no-prune --finish-best --repeats 5 --audit-pruning 0.25"
    line = commands.search_call("mine", [*flags.split(), "--names", "my words.txt"])
    assert line == (
        "search(space, base, name='mine', trials=64, prune=False, finish_best=True, repeats=5, "
        "audit_pruning=0.25, names='my words.txt')"
    )


def test_ranges_become_one_argument_of_search() -> None:
    line = commands.search_call("mine", ["--range", "lr=1:2", "--range", "n_embd=4,8"])
    assert line == "search(space, base, name='mine', ranges={'lr': '1:2', 'n_embd': '4,8'})"


def test_flag_of_one_script_is_no_argument_of_search() -> None:
    line = commands.search_call("mine", ["--lr-from-sweep", "--width", "3", "--trials", "2"])
    assert line == "search(space, base, name='mine', trials=2)"
