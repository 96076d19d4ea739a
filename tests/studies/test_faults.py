"""Faults, each really done: killed processes, full disks, servers away, two launches at once. No trial is lost."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from makemore.config import Config
from makemore.data import Corpus
from makemore.engines.cpu.engine import CpuEngine, Slot
from studies.harness.search import session as launch_module
from studies.harness.store.paths import MLRUNS
from studies.harness.store.study import load_study
from studies.harness.store.text import without_password
from studies.harness.store.trials import dev_loss
from studies.harness.tracking.client import connect, find_runs, get_experiment
from studies.harness.tracking.doctor import check
from tests.conftest import ROOT

STEPS_A_SECOND = 14_000  # what a slot does in about a second on a model of the default study
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


def start(*flags: object, script: str = "studies/mlp.py") -> subprocess.Popen[str]:
    """Start a study script as a user would, in a session of its own so that all of it can be killed."""
    command = [sys.executable, str(ROOT / script), *map(str, flags)]
    command += ["--repeats", "0"] if script == "studies/mlp.py" else []
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=Path.cwd(),
    )


def finish(process: subprocess.Popen[str], timeout: float = 120) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for did not happen"
        time.sleep(0.05)


def trial_states(study: str, storage: str | None = None) -> list[TrialState]:
    try:
        return [trial.state for trial in load_study(study, storage).get_trials(deepcopy=False)]
    except ValueError:  # not made yet
        return []


def violations(study: str, storage: str | None = None, uri: str | None = None) -> list[str]:
    client = connect(uri)
    found = check(
        load_study(study, storage), client, get_experiment(client, study), MLRUNS / "outbox" / study
    )
    return [f"{v.kind}: {v.detail}" for v in found]


def assert_whole(
    study: str, total: int, storage: str | None = None, uri: str | None = None
) -> None:
    """Exactly `total` trials ended, none runs, and each has exactly one finished run that says the same."""
    trials = load_study(study, storage).get_trials(deepcopy=False)
    assert sum(trial.state in ENDED for trial in trials) == total
    assert not [t.number for t in trials if t.state in (TrialState.RUNNING, TrialState.WAITING)]
    assert violations(study, storage, uri) == []
    client = connect(uri)
    runs = find_runs(client, get_experiment(client, study))
    final = [
        int(r.data.tags["trial"])
        for r in runs
        if r.data.tags.get("state") in ("COMPLETE", "PRUNED")
    ]
    assert sorted(final) == [t.number for t in trials if t.state in ENDED]
    assert not [run.info.run_name for run in runs if run.info.status == "RUNNING"]


def mlflow_knows_a_trial(study: str) -> bool:
    client = connect(None)
    experiment = client.get_experiment_by_name(study)
    return experiment is not None and bool(
        find_runs(client, experiment.experiment_id, "tags.trial != ''", most=1)
    )


def runs_by_trial(study: str) -> dict[int, Any]:
    client = connect(None)
    runs = find_runs(client, get_experiment(client, study))
    return {int(run.data.tags["trial"]): run for run in runs if "trial" in run.data.tags}


# ---- killed and interrupted


def flags_of(storage: str | None) -> tuple[str, ...]:
    return ("--storage", storage) if storage else ()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_kills_lose_no_trial(names: Path, storage: str | None) -> None:
    kills, trials = (20, 40) if storage is None else (5, 10)
    flags = (
        "--names",
        names,
        "--trials",
        trials,
        "--steps",
        STEPS_A_SECOND,
        "--device",
        "cpu",
        *flags_of(storage),
    )
    moments = random.Random(5)
    for _ in range(kills):
        process = start(*flags)
        time.sleep(moments.uniform(0.5, 5.0))
        os.killpg(process.pid, signal.SIGKILL)
        # Each kill met a launch that had work to do.
        assert finish(process)[0] == -signal.SIGKILL
    code, out, err = finish(start(*flags, "--json"), 240)
    assert code == 0, err
    assert_whole("mlp", trials, storage)
    assert "a-secret" not in out + err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_cleanly_and_the_study_goes_on(
    names: Path, number: signal.Signals, storage: str | None
) -> None:
    flags = (
        "--names",
        names,
        "--trials",
        3,
        "--steps",
        120_000,
        "--device",
        "cpu",
        "--no-prune",
        *flags_of(storage),
    )
    process = start(*flags)
    wait_for(lambda: TrialState.RUNNING in trial_states("mlp", storage))
    wait_for(lambda: mlflow_knows_a_trial("mlp"))
    process.send_signal(number)
    code, out, err = finish(process, timeout=30)
    assert code == 130 and "Traceback" not in err
    assert "run the same command again to continue" in out
    # What ran waits to be run again, and its run says why it ended.
    assert TrialState.RUNNING not in trial_states("mlp", storage)
    client = connect(None)
    runs = [
        run for run in find_runs(client, get_experiment(client, "mlp")) if "trial" in run.data.tags
    ]
    interrupted = [run for run in runs if run.data.tags["state"] == "INTERRUPTED"]
    # What MLflow did not take within two seconds is sent by the next launch.
    assert interrupted or any(run.data.tags["state"] == "RUNNING" for run in runs)
    assert {(run.info.status, run.data.tags["reason"]) for run in interrupted} <= {
        ("KILLED", "interrupted")
    }
    code, _, err = finish(start(*flags))
    assert code == 0, err
    assert_whole("mlp", 3, storage)


def test_a_second_signal_ends_at_once(names: Path) -> None:
    process = start("--names", names, "--trials", 3, "--steps", 500_000, "--device", "cpu")
    wait_for(lambda: TrialState.RUNNING in trial_states("mlp"))
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert finish(process, timeout=20)[0] == 130


# ---- engines that fail, and trainers with a bug


def inject(monkeypatch: pytest.MonkeyPatch, fail: Callable[[Slot], None]) -> None:
    """Let every slot's thread run `fail` before each stretch."""

    class Faulty(CpuEngine):
        def admit(self, config: Config) -> int:
            number = super().admit(config)
            slot = self._slots[number]
            train = slot.train

            def faulty() -> Any:
                fail(slot)
                return train()

            slot.train = faulty  # type: ignore[method-assign]
            return number

    def make(device: str, corpus: Corpus, capacity: int, envelope: object) -> CpuEngine:
        return Faulty(corpus, capacity)

    monkeypatch.setattr(launch_module, "make_engine", make)


def test_a_failed_engine_has_its_trials_run_again(
    launch: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[int] = []

    def fail(slot: Slot) -> None:
        if slot.history and len(failures) < 2:
            failures.append(slot.config.seed)
            raise MemoryError("injected")

    inject(monkeypatch, fail)
    assert launch(trials=5, prune=False) == 0
    trials = load_study("small", None).get_trials()
    failed = [t for t in trials if t.state == TrialState.FAIL]
    assert len(failed) == 2 and sum(t.state == TrialState.COMPLETE for t in trials) == 5
    client = connect(None)
    runs = {
        int(r.data.tags["trial"]): r
        for r in find_runs(client, get_experiment(client, "small"))
        if "trial" in r.data.tags
    }
    for trial in failed:
        assert (runs[trial.number].info.status, runs[trial.number].data.tags["state"]) == (
            "FAILED",
            "FAIL",
        )
        assert "injected" in runs[trial.number].data.tags["reason"]
        again = next(t for t in trials if t.user_attrs.get("retry_of") == trial.number)
        # The same parameters and the same seed, and a run that names the one it repeats.
        assert (again.params, again.user_attrs["seed"]) == (trial.params, trial.user_attrs["seed"])
        assert runs[again.number].data.tags["retry_of"] == str(trial.number)
    assert violations("small") == []


def test_parameters_are_tried_three_times_at_most(
    launch: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(slot: Slot) -> None:
        raise MemoryError("injected")

    inject(monkeypatch, fail)
    assert launch(trials=2) == 0
    trials = load_study("small", None).get_trials()
    assert [t.state for t in trials] == [TrialState.FAIL] * 6
    assert len({tuple(t.params.items()) for t in trials}) == 2
    assert violations("small") == []


def test_a_bug_in_the_trainer_stops_the_study_and_what_finished_is_stored(
    launch: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def fail(slot: Slot) -> None:
        if slot.config.seed not in seen:
            seen.append(slot.config.seed)
        if len(seen) == 3:
            raise ZeroDivisionError("a bug")

    inject(monkeypatch, fail)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        launch(trials=6, workers=1, prune=False)
    states = [t.state for t in load_study("small", None).get_trials()]
    assert states.count(TrialState.COMPLETE) == 2 and TrialState.RUNNING not in states
    assert violations("small") == []


# ---- two launches of one study


def test_two_launches_at_the_same_moment_share_the_work(names: Path, storage: str | None) -> None:
    shutil.rmtree(MLRUNS)  # neither store is there yet
    flags = (
        "--names",
        names,
        "--trials",
        16,
        "--steps",
        6000,
        "--workers",
        1,
        "--device",
        "cpu",
        *flags_of(storage),
    )
    both = [start(*flags), start(*flags)]
    for code, _, err in [finish(process) for process in both]:
        assert code == 0, err
    assert_whole("mlp", 16, storage)
    client = connect(None)
    runs = find_runs(client, get_experiment(client, "mlp"))
    assert len({run.data.tags["launch"] for run in runs}) == 2
    assert [e.name for e in client.search_experiments()].count("mlp") == 1


def test_a_torn_last_line_of_the_journal_is_read(launch: Callable[..., int]) -> None:
    launch(trials=2)
    before = [(t.number, t.state, dev_loss(t)) for t in load_study("small", None).get_trials()]
    journal = MLRUNS / "optuna" / "small.journal"
    with journal.open("ab") as file:
        file.write(b'{"op_code":4,"worker_id":"x","tri')
    assert [
        (t.number, t.state, dev_loss(t)) for t in load_study("small", None).get_trials()
    ] == before
    launch(trials=4)
    assert_whole("small", 4)


# ---- what is shown


def test_no_password_is_shown_or_stored(
    launch: Callable[..., int], postgres: str, storage: str | None
) -> None:
    if storage is None:
        pytest.skip("a journal has no password")
    launch(trials=2, storage=storage)
    stored = b"".join(path.read_bytes() for path in Path("mlruns").rglob("*") if path.is_file())
    assert b"a-secret" not in stored and b"127.0.0.1" in stored
    with pytest.raises(ValueError) as caught:
        launch(trials=2, storage=storage.replace("tester", "nobody"))
    assert "a-secret" not in str(caught.value)


# ---- disks


@pytest.fixture
def small_disk(workdir: Path, mlflow_template: Path) -> Iterator[Callable[[str], None]]:
    """mlruns/ on a tmpfs of its own; yields a function that remounts it with other options."""
    shutil.rmtree("mlruns")
    Path("mlruns").mkdir()

    def mount(options: str) -> None:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", "mlruns"],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")

    mount("size=3m")
    shutil.copy(mlflow_template, "mlruns/mlflow.db")
    yield lambda options: mount(f"remount,{options}")
    subprocess.run(["umount", "-l", "mlruns"], check=True)


def test_a_full_disk_is_one_sentence_and_the_study_goes_on_once_there_is_room(
    small_disk: Callable[[str], None], names: Path
) -> None:
    # Room for the start of a study, and not for all of its checkpoints.
    flags = (
        "--names",
        names,
        "--trials",
        60,
        "--steps",
        100,
        "--device",
        "cpu",
        "--no-prune",
        "--patience",
        1,
    )
    used = sum(path.stat().st_size for path in MLRUNS.rglob("*") if path.is_file())
    Path("mlruns/ballast").write_bytes(b"x" * max(0, 2_400_000 - used))
    code, _, err = finish(start(*flags))
    assert code in (1, 2) and "Traceback" not in err, err
    assert "No space left on device" in err or "disk is full" in err
    Path("mlruns/ballast").unlink()
    small_disk("size=64m")
    code, _, err = finish(start(*flags))
    assert code == 0, err
    assert_whole("mlp", 60)


def test_a_store_that_cannot_be_opened_is_one_sentence_also_while_the_study_trains(
    names: Path,
) -> None:
    flags = ("--names", names, "--trials", 3, "--steps", 20_000, "--device", "cpu")
    with closing(sqlite3.connect("mlruns/mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'of-a-newer-mlflow'")
    code, _, err = finish(start(*flags))
    assert (
        code == 2
        and "Traceback" not in err
        and err.splitlines()[-1].startswith("MLflow at sqlite:///")
    ), err
    # What runs waits, and what ended is sent once the store can be opened.
    assert TrialState.RUNNING not in trial_states("mlp")
    Path("mlruns/mlflow.db").unlink()
    code, _, err = finish(start(*flags))
    assert code == 0, err
    assert_whole("mlp", 3)


def test_what_is_no_database_is_refused_before_the_study_is_made(names: Path) -> None:
    Path("mlruns/mlflow.db").write_text("my notes, which are no database\n" * 100)
    code, _, err = finish(start("--names", names, "--trials", 1, "--device", "cpu"))
    assert (
        code == 2 and "does not answer: file is not a database" in err and "Traceback" not in err
    ), err
    assert trial_states("mlp") == [] and not Path("mlruns/optuna").exists()


def test_a_kill_while_mlflows_database_is_made_leaves_no_half_of_it(names: Path) -> None:
    Path("mlruns/mlflow.db").unlink()
    flags = ("--names", names, "--trials", 2, "--steps", 1000, "--device", "cpu")
    process = start(*flags)
    wait_for(lambda: list(MLRUNS.glob(".mlflow.db.new*")))
    os.killpg(process.pid, signal.SIGKILL)
    finish(process)
    code, _, err = finish(start(*flags))
    assert code == 0, err
    assert_whole("mlp", 2)
    assert not list(MLRUNS.glob(".mlflow.db*"))


def test_a_read_only_disk_is_one_sentence(small_disk: Callable[[str], None], names: Path) -> None:
    flags = ("--names", names, "--trials", 2, "--steps", 100, "--device", "cpu")
    assert finish(start(*flags))[0] == 0
    small_disk("ro")
    code, _, err = finish(start(*flags[:2], "--trials", 3, *flags[4:]))
    assert code in (1, 2) and "Traceback" not in err and "ead-only file system" in err, err
    small_disk("rw")
    assert_whole("mlp", 2)


# ---- the MLflow server


class Server:
    """A real MLflow server on 127.0.0.1 that can be killed and started again on its store."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        store = Path("server").absolute()
        store.mkdir(exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
        ]
        command += [
            "--backend-store-uri",
            f"sqlite:///{store}/mlflow.db",
            "--artifacts-destination",
            str(store / "a"),
        ]
        environment = {
            **os.environ,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        with (store / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--workers", "1"],
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        wait_for(self._answers)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(workdir: Path, mlflow_template: Path) -> Iterator[Server]:
    Path("server").mkdir()
    shutil.copy(mlflow_template, "server/mlflow.db")
    server = Server()
    server.start()
    yield server
    server.kill()


@pytest.mark.server
def test_a_server_that_is_away_for_ten_seconds_loses_nothing(server: Server, names: Path) -> None:
    flags = (
        "--names",
        names,
        "--trials",
        12,
        "--steps",
        20000,
        "--device",
        "cpu",
        "--tracking-uri",
        server.uri,
    )
    process = start(*flags)
    wait_for(lambda: any(state in ENDED for state in trial_states("mlp")))
    server.kill()
    time.sleep(10)
    server.start()
    code, _, err = finish(process)
    assert code == 0, err
    assert_whole("mlp", 12, uri=server.uri)


@pytest.mark.server
def test_a_server_that_stays_away_delays_and_loses_nothing(server: Server, names: Path) -> None:
    flags = ("--names", names, "--steps", 5000, "--device", "cpu", "--tracking-uri", server.uri)
    process = start(*flags, "--trials", 8, "--patience", 2)
    wait_for(lambda: any(state in ENDED for state in trial_states("mlp")))
    server.kill()
    code, _, err = finish(process)
    # The study is complete, and says what is missing and how to send it.
    assert code == 3 and "MLflow does not have" in err and "studies/doctor.py mlp" in err, err
    assert sum(state in ENDED for state in trial_states("mlp")) == 8
    server.start()
    code, out, _ = finish(start("mlp", "--tracking-uri", server.uri, script="studies/doctor.py"))
    assert code == 1 and "not sent to MLflow" in out
    code, out, err = finish(
        start("mlp", "--tracking-uri", server.uri, "--repair", script="studies/doctor.py")
    )
    assert code == 0, out + err
    assert_whole("mlp", 8, uri=server.uri)


# ---- what a second pair of eyes found


def test_a_file_that_is_no_journal_is_neither_cut_nor_appended_to(
    launch: Callable[..., int], workdir: Path
) -> None:
    for content in (b"my notes without a line end", b"garbage\n", b'{"model": "important"}'):
        (workdir / "notes").write_bytes(content)
        with pytest.raises(ValueError, match="is not an Optuna journal"):
            launch(storage="notes")
        assert (workdir / "notes").read_bytes() == content


def test_mlflow_is_written_again_after_its_database_was_deleted(
    launch: Callable[..., int], mlflow_template: Path
) -> None:
    launch(trials=3)
    for file in MLRUNS.glob("mlflow.db*"):
        file.unlink()
    shutil.copy(mlflow_template, MLRUNS / "mlflow.db")
    launch(trials=3)
    assert_whole("small", 3)


def test_a_repaired_run_keeps_the_files_of_the_one_that_differed(
    launch: Callable[..., int], run_file: Any
) -> None:
    launch(trials=2, prune=False)
    client, run = connect(None), runs_by_trial("small")[1]
    client.log_metric(run.info.run_id, "dev_loss", 9.0, step=10_000)
    assert run_file("studies/doctor.py", "small").code == 1
    repaired = run_file("studies/doctor.py", "small", "--repair")
    assert repaired.code == 0, repaired.out
    again = runs_by_trial("small")[1]
    files = {item.path for item in client.list_artifacts(again.info.run_id)}
    assert again.info.run_id != run.info.run_id and files == {
        "config.toml",
        "model.safetensors",
        "samples.txt",
    }


def test_a_lower_keep_models_drops_what_an_earlier_launch_kept(launch: Callable[..., int]) -> None:
    launch(trials=4, prune=False)
    launch(trials=5, prune=False, keep_models=1)
    client = connect(None)
    with_model = [
        number
        for number, run in runs_by_trial("small").items()
        if "model.safetensors" in {item.path for item in client.list_artifacts(run.info.run_id)}
    ]
    assert with_model == [
        min(load_study("small", None).get_trials(), key=lambda t: t.value or 9).number
    ]


@pytest.mark.parametrize("password", ["secret", "se@cr/et", "a:b@c"])
def test_passwords_are_masked_whatever_they_hold(password: str) -> None:
    assert (
        without_password(f"postgresql://me:{password}@host:5432/x")
        == "postgresql://me:***@host:5432/x"
    )
