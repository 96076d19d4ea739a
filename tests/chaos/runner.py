"""Runs a fault schedule on real processes, ends the study without faults, and checks it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.chaos.checker import Finding, Place, changed_files, check, compare, fingerprint
from tests.chaos.processes import Script, start, wait_until
from tests.chaos.schedules import BEFORE, DURING, HTTP, Fault, Schedule, Step
from tests.chaos.stores import Study, count_ended, read_study
from tests.chaos.world import World, mount
from tests.chaos.wrong_answers import WrongAnswer, choose_from
from tests.conftest import write_small_names
from tests.servers import forward

LAUNCHES = 3  # at the end of a schedule, without faults; the first one should complete the study
REFERENCE = 30  # trials of a study without faults; no schedule has more
STUDY, DOCTOR = "studies/mlp.py", "studies/doctor.py"


@dataclass
class Result:
    """The outcome of a schedule.

    Attributes:
        hit: how many faults of each kind hit a running launch; the others came too late.
        repaired: findings that `doctor.py --repair` removed.
        findings: broken promises that are left.
    """

    schedule: Schedule
    folder: Path
    hit: Counter[str] = field(default_factory=Counter)
    repaired: list[Finding] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    launches: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Examined:
    """Whether the doctor finds the stores clean, and what the checker finds."""

    clean: bool
    findings: list[Finding]


class Session:
    """One schedule: its folder, its processes and its result."""

    def __init__(self, world: World, schedule: Schedule, name: str = "") -> None:
        self.world = world
        self.schedule = schedule
        self.root = world.folder / (name or f"schedule-{schedule.seed}")
        folder = self.root / "work"
        (folder / "mlruns").mkdir(parents=True)
        self._mounted = any(f.kind == "full disk" for f in schedule.faults) and mount(folder)
        write_small_names(folder / "names.txt")
        if schedule.ready:
            shutil.copy(world.template, folder / "mlruns" / "mlflow.db")
        server = world.server()[0].folder if schedule.on_server else None
        self.place = Place(folder, f"s{schedule.seed}", server)
        self.result = Result(schedule, self.root)
        self._others: list[Script] = []
        self._wrong: list[WrongAnswer] = []
        self._max_file: int | None = None

    def run(self) -> Result:
        """Run all launches, and check the study in the end."""
        begun = time.monotonic()
        try:
            for step in self.schedule.launches:
                self._step(step)
            self._finish(self.place, self.schedule.trials)
            self._compare()
        finally:
            if self._mounted:
                subprocess.run(["umount", "-l", str(self.place.folder / "mlruns")], check=True)
        self.result.seconds = time.monotonic() - begun
        return self.result

    def found(self, kind: str, detail: str) -> None:
        self.result.findings.append(Finding(kind, detail))

    # ---- processes

    def launch(
        self,
        place: Place,
        trials: int,
        patience: float,
        *,
        cold: bool = False,
        faulty: bool = False,
    ) -> Script:
        """Start a launch of the study."""
        schedule = self.schedule
        flags: list[object] = ["--study", place.study, "--names", "names.txt", "--device", "cpu"]
        flags += ["--trials", trials, "--steps", schedule.steps, "--workers", schedule.workers]
        flags += ["--repeats", schedule.repeats, "--patience", patience, *self._store()]
        max_file = self._max_file if faulty else None
        return self._start(STUDY, flags, place, cold, max_file)

    def _store(self) -> list[str]:
        return ["--tracking-uri", self.world.server()[1].uri] if self.schedule.on_server else []

    def _start(
        self,
        script: str,
        flags: list,
        place: Place,
        cold: bool = False,
        max_file: int | None = None,
    ) -> Script:
        self.result.launches += 1
        output = self.root / f"output-{self.result.launches:02d}"
        return start(
            script, *flags, folder=place.folder, output=output, cold=cold, max_file=max_file
        )

    def _end(self, script: Script) -> int | None:
        """Wait for a script, and return its exit code. A hang or a traceback is a finding."""
        if not script.wait():
            self.found("hang", f"{script.name} did not end; its output is {script.output}")
        elif "Traceback" in script.text:
            last = script.text.strip().splitlines()[-1]
            self.found("traceback", f"{script.output.name} of {script.name}: {last[:200]}")
        return script.code

    # ---- one launch with faults

    def _step(self, step: Step) -> None:
        for fault in step.faults:
            if fault.kind in BEFORE:
                self._prepare(fault)
        before = count_ended(self.place.journal)
        first = self.launch(self.place, step.trials, 2, cold=step.cold, faulty=True)
        for fault in step.faults:
            if fault.kind in DURING and self._wait_for(fault, first, before):
                self._hit(fault, first, step)
        for script in [first, *self._others]:
            self._end(script)
        self._undo()

    def _prepare(self, fault: Fault) -> None:
        """Do what must be done before the launch starts."""
        if fault.kind == "move":
            self._move()
        elif fault.kind == "copy":
            self._copy()
        elif fault.kind in HTTP:
            skip = int(fault.size * (40 if fault.where == "/api/2.0/" else 4))
            self._wrong.append(WrongAnswer(fault.kind, fault.where, skip, 1 + fault.after % 4))
            self.world.server()[1].choose = choose_from(self._wrong)
        else:
            self._limit_files(fault)

    def _limit_files(self, fault: Fault) -> None:
        """Let the launch write no larger file: no more of the journal, or of another file."""
        journal = self.place.journal
        if fault.size < 0.5 and journal.exists():
            self._max_file = journal.stat().st_size + int(fault.size * 40_000)
        else:
            self._max_file = int(fault.size * 1_000_000)
        self.result.hit["file size limit"] += 1

    def _wait_for(self, fault: Fault, script: Script, before: int) -> bool:
        """Wait for the moment of a fault; returns False if the launch ended before."""
        if fault.kind == "interrupt":  # earlier, it would hit Python's start
            wait_until(lambda: script.text, script)
        if fault.after >= 0:
            target = before + fault.after
            wait_until(lambda: count_ended(self.place.journal) >= target, script)
        moment = time.monotonic() + fault.delay
        return wait_until(lambda: time.monotonic() >= moment, script)

    def _hit(self, fault: Fault, script: Script, step: Step) -> None:
        """Cause a fault of a running launch."""
        hit = True
        if fault.kind == "kill":
            hit = script.send(signal.SIGKILL)
        elif fault.kind == "interrupt":
            hit = script.send(signal.SIGINT)
        elif fault.kind == "freeze":
            hit = script.send(signal.SIGSTOP)
            time.sleep(0.2 + 1.5 * fault.size)
            script.send(signal.SIGCONT)
        elif fault.kind == "second launch":
            self._others.append(self.launch(self.place, step.trials, 2, cold=step.cold))
        elif fault.kind == "repair during launch":
            flags = [self.place.study, "--repair", *self._store()]
            self._others.append(self._start(DOCTOR, flags, self.place))
        elif fault.kind == "full disk":
            hit = self._fill_disk(fault)
        else:
            server, _ = self.world.server()
            server.kill()
            if fault.size < 0.5:  # else it is away until the launch ends
                time.sleep(4 * fault.size)
                server.start()
        self.result.hit[fault.kind] += hit

    def _fill_disk(self, fault: Fault) -> bool:
        """Leave little room on the disk of mlruns/; returns False if it is not a small disk."""
        if self._mounted:
            disk = os.statvfs(self.place.folder / "mlruns")
            size = disk.f_bavail * disk.f_frsize - int(fault.size * 300_000)
            # The study may have written meanwhile; then the disk is full before the last byte.
            with suppress(OSError), (self.place.folder / "mlruns" / "ballast").open("ab") as file:
                file.write(b"x" * max(0, size))
        return self._mounted

    def _undo(self) -> None:
        """End what the faults of a launch changed."""
        for wrong in self._wrong:
            self.result.hit[wrong.kind] += wrong.done > 0
        if self.schedule.on_server:
            self.world.server()[1].choose = forward
        self._others, self._wrong, self._max_file = [], [], None
        (self.place.folder / "mlruns" / "ballast").unlink(missing_ok=True)

    # ---- folders

    def _move(self) -> None:
        """Rename the working directory."""
        number = self.result.hit["move"] + 1
        moved = self.place.folder.rename(self.root / f"moved-{number}")
        self.place = replace(self.place, folder=moved)
        self.result.hit["move"] += 1

    def _copy(self) -> None:
        """Continue the study in a copy of the working directory. The original must not change."""
        number = self.result.hit["copy"] + 1
        folder = self.root / f"copy-{number}"
        before = fingerprint(self.place.folder)
        subprocess.run(["cp", "-r", str(self.place.folder), str(folder)], check=True)
        copy = replace(self.place, folder=folder)
        done = sum(trial.counts for trial in read_study(copy.journal).trials)
        self._finish(copy, done + 4)
        if changed := changed_files(before, fingerprint(self.place.folder)):
            self.found("original touched", f"the copy changed {len(changed)} files: {changed[:4]}")
        self.result.hit["copy"] += 1

    # ---- the end

    def _finish(self, place: Place, total: int) -> None:
        """Complete a study without faults, check it, and repair it if necessary."""
        for _ in range(LAUNCHES):
            code = self._end(last := self.launch(place, total, 30))
            if code in (0, 3):
                break
        else:
            text = (last.text.strip() or "no output").splitlines()[-1]
            self.found("not completed", f"{LAUNCHES} launches did not complete it: {text[:300]}")
        found = self._examine(place, total)
        if not found.clean:
            self._end(self._start(DOCTOR, [place.study, "--repair", *self._store()], place))
            first, found = found, self._examine(place, total)
            left = {str(finding) for finding in found.findings}
            self.result.repaired += [f for f in first.findings if str(f) not in left]
        self.result.findings += found.findings

    def _examine(self, place: Place, total: int) -> Examined:
        """Ask the checker and the doctor; their disagreement is a finding."""
        findings = check(place, total, self.schedule.repeats)
        doctor = self._start(DOCTOR, [place.study, "--json", *self._store()], place)
        code = self._end(doctor)
        clean = code == 0
        if clean == bool(findings):
            lines = [line for line in doctor.text.splitlines() if line.startswith('{"study"')]
            says = json.loads(lines[-1])["violations"][:2] if lines else doctor.text[-200:]
            detail = f"it finds {says}; the checker finds {[str(f) for f in findings[:2]]}"
            self.found("doctor disagrees", detail)
        return Examined(clean, findings)

    def _compare(self) -> None:
        """Compare the study with one that saw no fault, where both must have the same trials."""
        schedule = self.schedule
        if schedule.workers == 1 and not schedule.repeats and not self.result.hit["second launch"]:
            actual = read_study(self.place.journal)
            self.result.findings += compare(self._reference(), actual)

    def _reference(self) -> Study:
        """Return a study of the same trials that one launch trained without faults."""
        steps = self.schedule.steps
        references = self.world.references
        if steps not in references:
            plain = Schedule(steps, False, steps, 1, 0, True, (Step(REFERENCE - 2, (), False),))
            session = Session(self.world, plain, f"reference-{steps}")
            session.launch(session.place, REFERENCE, patience=30).wait()
            references[steps] = read_study(session.place.journal)
        return references[steps]
