"""The commands and files of docs/cluster.md: the batch script parses, and its flags exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import fields

import pytest

from studies.harness.cli.args import StudyArgs
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "cluster.md"
BATCH_SCRIPT = ROOT / "docs" / "cluster" / "study.sbatch"
MANIFEST = ROOT / "docs" / "cluster" / "rayjob.yaml"


def study_commands(text: str) -> list[list[str]]:
    """Return the arguments of each command line that starts the study."""
    lines = text.replace("\\\n", " ").splitlines()
    commands = [re.split(r"[ /]studies/mlp\.py ", line) for line in lines]
    return [shlex.split(parts[1], comments=True) for parts in commands if len(parts) == 2]


def unknown_flags(arguments: list[str]) -> list[str]:
    known = {f"--{field.name.replace('_', '-')}" for field in fields(StudyArgs)}
    return [flag for flag in arguments if flag.startswith("--") and flag not in known]


def test_batch_script_is_bash() -> None:
    checked = subprocess.run(["bash", "-n", BATCH_SCRIPT], capture_output=True, text=True)

    assert (checked.returncode, checked.stderr) == (0, "")


def test_batch_script_names_known_flags() -> None:
    (arguments,) = study_commands(BATCH_SCRIPT.read_text(encoding="utf-8"))

    assert "--ray" in arguments
    assert unknown_flags(arguments) == []


def test_manifest_names_known_flags() -> None:
    yaml = pytest.importorskip("yaml", reason="pyyaml is not installed (mlflow installs it)")
    job = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    (arguments,) = study_commands(job["spec"]["entrypoint"])

    assert job["kind"] == "RayJob"
    assert "--ray" in arguments
    assert unknown_flags(arguments) == []


def test_page_names_known_flags_and_existing_files() -> None:
    text = PAGE.read_text(encoding="utf-8")
    commands = study_commands(text)
    targets = re.findall(r"\]\((?!https?://)([^)#]+)\)", text)

    assert len(commands) > 5
    assert [flag for arguments in commands for flag in unknown_flags(arguments)] == []
    assert [target for target in targets if not (PAGE.parent / target).exists()] == []
