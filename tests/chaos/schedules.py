"""Draws fault schedules from a seed: launches of one small study, and what happens to each."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass

HTTP = ("5xx", "lost reply", "false 200")
SERVER = ("server kill", *HTTP)
BEFORE = ("move", "copy", "file size limit", *HTTP)  # prepared before the launch starts
DURING = (
    "kill",
    "freeze",
    "interrupt",
    "second launch",
    "repair during launch",
    "full disk",
    "server kill",
)
KINDS = DURING + BEFORE

# Parts of the paths of MLflow's requests; "" is any request.
PATHS = ("/api/2.0/", "runs/create", "runs/log-batch", "runs/update", "mlflow-artifacts")


@dataclass(frozen=True)
class Fault:
    """One fault of a launch.

    Attributes:
        kind: one of KINDS.
        after: the fault comes when so many trials of the launch have ended; -1: at its start.
        delay: seconds between that moment and the fault.
        size: how strong it is, from 0 to 1; its meaning depends on the kind.
        where: for wrong answers, part of the paths of the requests.
    """

    kind: str
    after: int
    delay: float
    size: float
    where: str = ""


@dataclass(frozen=True)
class Step:
    """One launch.

    Attributes:
        trials: the total that the launch is started with.
        faults: in the order in which they come.
        cold: the launch starts a new interpreter.
    """

    trials: int
    faults: tuple[Fault, ...]
    cold: bool


@dataclass(frozen=True)
class Schedule:
    """The launches of one study; a last launch without faults follows them.

    Attributes:
        seed: makes this schedule again.
        on_server: MLflow is a server behind the proxy, else the database in mlruns/.
        steps: optimizer steps of each trial.
        workers: trials at once.
        repeats: most seed repeats of each of the three best trials.
        ready: mlruns/ has a migrated MLflow database, else the first launch creates one.
    """

    seed: int
    on_server: bool
    steps: int
    workers: int
    repeats: int
    ready: bool
    launches: tuple[Step, ...]

    @property
    def faults(self) -> list[Fault]:
        return [fault for launch in self.launches for fault in launch.faults]

    @property
    def trials(self) -> int:
        """The study's total in the end."""
        return self.launches[-1].trials + 2

    def __str__(self) -> str:
        faults = ", ".join(
            " + ".join(fault.kind for fault in launch.faults) for launch in self.launches
        )
        return f"{self.seed:>8} {'server' if self.on_server else 'sqlite'} {faults}"


def make_schedule(seed: int, kinds: Collection[str] = KINDS, cold: bool | None = None) -> Schedule:
    """Draw a schedule.

    Args:
        seed: the same seed and kinds make the same schedule.
        kinds: the kinds of faults to draw from.
        cold: whether launches start a new interpreter; None: one in ten does.
    """
    draw = random.Random(seed)
    on_server = draw.random() < 0.35
    # A copy would write to the same experiment of the server as the original.
    other = {"copy"} if on_server else set(SERVER)
    usable = [kind for kind in KINDS if kind in kinds and kind not in other]
    if not usable:
        on_server = not on_server
        usable = [kind for kind in KINDS if kind in kinds]
    if on_server:  # the server is what this schedule is about
        usable += 2 * [kind for kind in usable if kind in SERVER]

    launches = []
    trials = 0
    for _ in range(draw.randint(3, 6)):
        trials += draw.randint(2, 4)
        faults = [_draw_fault(draw, usable)]
        if draw.random() < 0.4:
            faults.append(_draw_fault(draw, usable))
        faults.sort(key=lambda fault: (fault.kind in DURING, fault.after, fault.delay))
        start_cold = draw.random() < 0.1
        launches.append(Step(trials, tuple(faults), start_cold if cold is None else cold))
    return Schedule(
        seed,
        on_server,
        steps=draw.choice([40, 40, 400, 2000]),
        workers=draw.choice([1, 2]),
        repeats=draw.choice([0, 0, 2]),
        ready=draw.random() < 0.8,
        launches=tuple(launches),
    )


def _draw_fault(draw: random.Random, kinds: list[str]) -> Fault:
    kind = draw.choice(kinds)
    after = draw.choice([-1, -1, 0, 1, 2, 3])
    # A launch takes some seconds, most of them before its first trial and after its last.
    delay = draw.uniform(0, 2.5) if after < 0 else draw.choice([0.0, draw.uniform(0, 1.5)])
    return Fault(kind, after, round(delay, 3), draw.random(), draw.choice(PATHS))
