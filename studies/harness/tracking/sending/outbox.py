"""Names of the folders in the outbox, which hold files that are not sent yet."""

from __future__ import annotations

from pathlib import Path


def trial_folders(outbox: Path) -> list[Path]:
    """Return the folders of trials in an outbox; entries that are not of this project are not."""
    return sorted(
        path
        for path in outbox.glob("[0-9]*-*")
        if path.name.split("-", 1)[0].isdecimal() and path.is_dir()
    )


def read_folder_name(folder: Path) -> tuple[int, str, str]:
    """Return the trial number of an outbox folder, the launch that trained, and that which sends.

    The name is NUMBER-LAUNCH, or NUMBER-LAUNCH@SENDER after another launch has adopted the trial.
    """
    number, name = folder.name.split("-", 1)
    launch, _, sender = name.partition("@")
    return int(number), launch, sender or launch
