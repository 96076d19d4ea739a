"""Recovery: MLflow is written again from Optuna's storage, once, by whatever launches recover."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from studies.harness.store.launches import Launch
from studies.harness.store.paths import MLRUNS
from studies.harness.store.study import load_study
from studies.harness.tracking.connection.connect import connect
from studies.harness.tracking.connection.find import get_experiment
from studies.harness.tracking.repairs.recovery import recover
from studies.harness.tracking.sending.tracker import Tracker
from tests.studies.conftest import Launcher, artifacts_of, assert_whole, runs_by_trial, runs_of

DATASET = {"name": "words", "sha256": "0" * 64, "source": "words.txt"}
OUTBOX = MLRUNS / "outbox" / "small"
FILES = {"config.toml", "model.safetensors", "samples.txt"}


@pytest.fixture
def lose_database(mlflow_template: Path) -> Callable[[], None]:
    def lose_database() -> None:
        # This process must open the new file, as another process would.
        connect(None)._tracking_client.store.engine.dispose()
        for file in MLRUNS.glob("mlflow.db*"):
            file.unlink()
        shutil.copy(mlflow_template, MLRUNS / "mlflow.db")

    return lose_database


def begin_launch(study: optuna.Study) -> tuple[Launch, Tracker]:
    launch = Launch.begin(study)
    client = connect(None)
    experiment_id = get_experiment(client, "small")
    return launch, Tracker(client, experiment_id, OUTBOX, launch.id, DATASET)


def end_launches(*launches: tuple[Launch, Tracker]) -> None:
    """Send what the launches adopted, all at the same time, and end them."""
    for launch, tracker in launches:
        tracker.begin("small", {"launch": launch.id}, {})
    for launch, tracker in launches:
        tracker.finish_parent("FINISHED")
        assert tracker.close(30) == 0
        launch.end()


def test_deleted_database_is_written_again(
    launch: Launcher, lose_database: Callable[[], None]
) -> None:
    launch(trials=3, prune=False)
    lose_database()

    launch(trials=3)

    assert_whole("small", 3)
    # The files were still on the disk.
    for run in runs_by_trial("small").values():
        assert artifacts_of(run) == FILES and "restored" not in run.data.tags


def test_files_of_another_study_of_the_same_name_are_not_taken(
    launch: Launcher, lose_database: Callable[[], None]
) -> None:
    launch(trials=3, prune=False)
    lose_database()
    (MLRUNS / "optuna" / "small.journal").unlink()
    launch(trials=3, prune=False, seed=5)
    shutil.rmtree(runs_by_trial("small")[1].info.artifact_uri.removeprefix("file://"))
    lose_database()

    launch(trials=3, seed=5)

    assert_whole("small", 3)
    runs = runs_by_trial("small")
    assert artifacts_of(runs[0]) == FILES
    assert artifacts_of(runs[1]) == {"config.toml"}
    assert "are lost" in runs[1].data.tags["restored"]


def test_two_launches_write_a_lost_study_once(
    launch: Launcher, lose_database: Callable[[], None]
) -> None:
    launch(trials=4, prune=False)
    lose_database()
    study = load_study("small", None)

    first, second = begin_launch(study), begin_launch(study)
    for _, tracker in (first, second):
        recover(tracker, study)
    end_launches(first, second)

    assert_whole("small", 4)
    assert not list(OUTBOX.iterdir())


def test_two_launches_adopt_a_folder_once(launch: Launcher) -> None:
    launch(trials=3, prune=False)
    study = load_study("small", None)
    client = connect(None)
    for trial in (1, 2):  # as a launch leaves them that MLflow did not answer
        run = runs_by_trial("small")[trial]
        folder = OUTBOX / f"{trial:05d}-{run.data.tags['launch']}"
        shutil.move(run.info.artifact_uri.removeprefix("file://"), folder)
        client.delete_run(run.info.run_id)

    first, second = begin_launch(study), begin_launch(study)
    adopted = [recover(tracker, study) for _, tracker in (first, second)]
    assert adopted == [2, 0]
    # The launch that adopted them dies too, and a third one sends them.
    first[0].end()
    end_launches(second)
    third = begin_launch(study)
    assert recover(third[1], study) == 2
    end_launches(third)

    assert_whole("small", 3)
    for run in runs_by_trial("small").values():
        assert artifacts_of(run) == FILES


def test_trial_that_ends_during_recovery_is_not_lost(launch: Launcher) -> None:
    launch(trials=2)
    study = load_study("small", None)
    living = [Launch.begin(study) for _ in range(4)]
    ending = Launch.begin(study)
    for i, other in enumerate([*living, ending]):
        number = 2 + i
        trial = study.ask()
        assert trial.number == number
        trial.set_user_attr("launch", other.id)
        trial.set_user_attr("seed", number)
        (OUTBOX / f"{number:05d}-{other.id}").mkdir()
    kept = OUTBOX / f"00006-{ending.id}"
    (kept / "samples.txt").write_text("emma")

    def end_trial() -> None:
        time.sleep(0.3)  # meanwhile the recovery asks whether the living launches live
        again = load_study("small", None)
        again.tell(6, 2.0)
        ending.end()

    thread = threading.Thread(target=end_trial)
    own, tracker = begin_launch(study)
    thread.start()
    recover(tracker, study)
    thread.join()

    left = [folder for folder in OUTBOX.glob("00006-*")]
    assert len(left) == 1 and (left[0] / "samples.txt").read_text() == "emma"
    for each in (*living, own):
        each.end()


def test_folders_that_a_launch_removes_during_recovery(launch: Launcher) -> None:
    launch(trials=1)
    study = load_study("small", None)
    living = [Launch.begin(study) for _ in range(4)]
    ending = [Launch.begin(study) for _ in range(4)]
    for other in [*living, *ending]:
        (OUTBOX / f"00000-{other.id}").mkdir()
        (OUTBOX / f".parent-{other.id}-a1b2c3").mkdir()

    def end_launches() -> None:
        time.sleep(0.3)  # meanwhile the recovery asks whether the living launches live
        for other in ending:
            (OUTBOX / f"00000-{other.id}").rmdir()
            (OUTBOX / f".parent-{other.id}-a1b2c3").rmdir()
            other.end()

    thread = threading.Thread(target=end_launches)
    own, tracker = begin_launch(study)
    thread.start()
    recover(tracker, study)
    thread.join()

    for other in living:
        assert len(list(OUTBOX.glob(f"*-{other.id}*"))) == 2
    for each in (*living, own):
        each.end()


def test_run_of_a_dead_launch_is_ended(launch: Launcher) -> None:
    launch(trials=1)
    client = connect(None)
    tags = {"launch": "dead", "trial": "0", "state": "RUNNING"}
    made = client.create_run(get_experiment(client, "small"), tags=tags)

    launch(trials=2)

    [run] = [run for run in runs_of("small") if run.info.run_id == made.info.run_id]
    assert (run.info.status, run.data.tags["state"]) == ("KILLED", "INTERRUPTED")
