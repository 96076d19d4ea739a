"""The five-parameter search: learning rate, context, embedding, hidden width and batch size of the lecture's model.

SGD with the lecture's step schedule; the lecture's own configuration is tried first. Copy this file to search other
things.
"""

from dataclasses import dataclass

from makemore.config import Config
from studies.harness.cli import run_script
from studies.harness.launch import StudyArgs, run_study
from studies.harness.spaces import LECTURE, five_parameters

BASE = Config(optimizer="sgd", schedule="step", init="kaiming")


@dataclass
class Args(StudyArgs):
    """Search lr, block_size, n_embd, n_hidden and batch_size."""

    study: str = "mlp"
    trials: int = 32
    steps: int = 5000


if __name__ == "__main__":
    run_script(Args, lambda args: run_study(args, five_parameters, BASE, first=LECTURE))
