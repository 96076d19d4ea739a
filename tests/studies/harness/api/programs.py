"""Programs that tests run in processes and kernels of their own."""

from __future__ import annotations

# The space and the settings of small studies.
SETUP = """
from makemore import Config
from studies import Study, search

BASE = Config(optimizer="sgd", schedule="step", init="kaiming")


def space(trial, base):
    return base.replace(lr=trial.suggest_float("lr", 0.01, 1.0, log=True))


SMALL = {"names": "names.txt", "trials": 3, "steps": 20, "device": "cpu", "repeats": 0}
"""

# Sends SIGNALS interrupts to itself after 20 evaluations of a long study.
INTERRUPTED = """
import os, signal, sys
from studies.harness.search.loop.coordinator import Coordinator

handle = Coordinator._handle
count = 0


def interrupt_later(self, slot, outcome):  # real signals, sent when the study trains
    global count
    count += 1
    if count == 20:
        for _ in range(SIGNALS):
            os.kill(os.getpid(), signal.SIGINT)
    handle(self, slot, outcome)


Coordinator._handle = interrupt_later
many = {**SMALL, "trials": 500, "workers": 1, "prune": False}
before = signal.getsignal(signal.SIGINT)
try:
    study = search(space, BASE, name="mine", **many)
    print("returned", len(study.trials) < 500, study.best.trial >= 0)
except KeyboardInterrupt:
    print("raised")
print(signal.getsignal(signal.SIGINT) is before)
"""
