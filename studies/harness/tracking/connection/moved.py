"""Keeps the paths in MLflow's SQLite database right after its folder was moved or copied.

MLflow stores the place of every artifact as an absolute path. In a moved folder these paths lead
nowhere, and in a copied folder they lead to the files of the original. So the database remembers
its folder, and its paths are rewritten when it is opened in another one.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from studies.harness.store.paths import MLRUNS

# The tag of MLflow's experiment 0, Default, that names the folder of the database.
FOLDER = "makemore.folder"
# The columns of MLflow's tables that hold the path or the URI of an artifact.
COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def rebase(database: sqlite3.Connection, folder: Path) -> None:
    """Rewrite the artifact paths of a database whose folder was moved or copied.

    Only paths below the old folder change, all of them in one transaction.

    Args:
        database: MLflow's database, with its tables.
        folder: the folder that holds the database now; absolute.
    """
    query = "SELECT value FROM experiment_tags WHERE experiment_id = 0 AND key = ?"
    found = database.execute(query, (FOLDER,)).fetchone()
    before = Path(found[0]) if found else None
    if before == folder:
        return
    locations = _locations(database)
    old = {before} if before else {_root(*item) for item in locations.items()} - {None, folder}
    moved = [root for root in old if root and _has_moved(root, folder, before, locations)]
    if before and not moved:
        return
    with database:
        for root in moved:
            _rewrite(database, root, folder)
        sql = "INSERT OR REPLACE INTO experiment_tags (experiment_id, key, value) VALUES (0, ?, ?)"
        database.execute(sql, (FOLDER, str(folder)))


def _locations(database: sqlite3.Connection) -> dict[str, str]:
    """Return the artifact locations of the experiments by their names."""
    rows = database.execute("SELECT name, artifact_location FROM experiments")
    return {name: location or "" for name, location in rows}


def _root(name: str, location: str) -> Path | None:
    """Return the folder whose artifacts/NAME is the location of experiment NAME, if it is one."""
    if not location.startswith("file://"):
        return None
    path = Path(url2pathname(urlsplit(location).path))
    return path.parents[1] if path.parts[-2:] == ("artifacts", name) else None


def _has_moved(old: Path, folder: Path, before: Path | None, locations: dict[str, str]) -> bool:
    """Return whether the files of the folder `old` are in `folder` now.

    A database outside mlruns/ may have been moved without its artifacts. A database that does not
    remember its folder may hold artifacts of another one on purpose.
    """
    if old.exists() and os.path.samefile(old, folder):
        return False  # another name of the same folder
    default = folder == MLRUNS.absolute()
    if default and (before or not old.exists()):
        return True
    names = [name for name, location in locations.items() if _root(name, location) == old]
    return any((folder / "artifacts" / name).is_dir() for name in names)


def _rewrite(database: sqlite3.Connection, old: Path, new: Path) -> None:
    """Replace the folder `old` by `new` at the start of every path and URI."""
    for before, after in ((old.as_uri(), new.as_uri()), (str(old), str(new))):
        for table, column in COLUMNS:
            database.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                f"WHERE substr({column}, 1, ?) = ?",
                (after, len(before) + 1, len(before) + 1, f"{before}/"),
            )
