"""What a sweep over learning rates needs beyond a study: a sampler that spreads them evenly, and a picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from studies.harness.records import dev_loss, ranked


class EvenSampler(BaseSampler):
    """Takes trial n of one log-uniform parameter from point n of the golden-ratio sequence.

    However many trials there are, they cover the range evenly, and more of them fill the gaps; each has another value.
    """

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing is sampled jointly."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing is sampled jointly."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> float:
        """The value of the trial's number.

        Raises:
            TypeError: the parameter is not a log-uniform float.
        """
        if not (isinstance(param_distribution, FloatDistribution) and param_distribution.log):
            raise TypeError(f"EvenSampler takes log-uniform floats, but {param_name} is {param_distribution}.")
        share = (0.5 + trial.number * (math.sqrt(5) - 1) / 2) % 1
        return param_distribution.low * (param_distribution.high / param_distribution.low) ** share


def plot_dev_losses(study: optuna.Study, path: Path) -> Path:
    """Draw each trial's best dev loss against its learning rate, and mark those that diverged; returns the path."""
    from matplotlib.figure import Figure  # takes 0.3 s to import

    trials = study.get_trials(deepcopy=False)
    measured = sorted(ranked(trials), key=lambda trial: trial.params["lr"])
    diverged = [t.params["lr"] for t in trials if "diverged" in t.user_attrs.get("summary", {}).get("reason", "")]
    figure = Figure(figsize=(8, 5), layout="constrained")
    ax = figure.subplots()
    if measured:
        lrs, losses = [t.params["lr"] for t in measured], [dev_loss(t) or 0.0 for t in measured]
        ax.plot(lrs, losses, "o-", color="tab:blue", ms=5, lw=1, label="best dev loss of a trial")
        lowest = min(range(len(losses)), key=losses.__getitem__)
        reading = f"lowest: {losses[lowest]:.4f} at lr {lrs[lowest]:.3g}"
        ax.axvline(lrs[lowest], color="tab:red", ls="--", label=reading)
    if diverged:
        ax.plot(diverged, [0.97] * len(diverged), "kx", transform=ax.get_xaxis_transform(), label="diverged")
    ax.set_xscale("log")
    ax.set(xlabel="learning rate", ylabel="dev loss (nats per character)")
    base = study.user_attrs["base"]
    sizes = f"block {base['block_size']}, embedding {base['n_embd']}, hidden {base['n_hidden']}"
    title = f"{study.study_name}: {base['max_steps']:,} {base['optimizer']} steps, {sizes}, batch {base['batch_size']}"
    ax.set_title(f"{title}, init {base['init']}", fontsize="medium")
    ax.grid(alpha=0.3)
    if measured or diverged:
        ax.legend()
    figure.savefig(path, dpi=120)
    return path
