"""The race of the best configs after the search: which of them get another seed repeat.

Round 1 gives the best configs two seed repeats each. Later rounds give one more to each config
that is still tied with the lowest mean, until one is left or the cap or the budget is reached.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from studies.harness.store.text import counted
from studies.harness.store.trials import is_follow_up, ranked
from studies.harness.store.winner.noise import MIN_REPEATS, measure_noise

FEWEST, MOST = 3, 10  # configs in the race
DEFAULT_CAP = 5  # seed repeats of a config
SHARE = 0.15  # of the training steps of the search: the default budget, for round 1 at least


def plan_repeats(trials: Sequence[FrozenTrial], cap: int | None) -> list[int]:
    """Return the numbers of the trials to repeat next, once for each seed repeat.

    The list is empty while repeats wait or train, and when the race is over.

    Args:
        trials: all trials of a study, by number.
        cap: most seed repeats of a config. None: DEFAULT_CAP, within the default budget.
    """
    if count_open_repeats(trials):
        return []
    repeats = [t for t in trials if "repeat_of" in t.user_attrs and "replaced" not in t.user_attrs]
    done = Counter(int(trial.user_attrs["repeat_of"]) for trial in repeats)
    affordable = _affordable(trials)
    # The budget covers the two repeats of round 1, and about one more for each config.
    n_configs = min(MOST, max(FEWEST, affordable // 3))
    limit = DEFAULT_CAP if cap is None else cap

    complete = [trial for trial in ranked(trials) if trial.state == TrialState.COMPLETE]
    first = min(MIN_REPEATS, limit)
    missing = [
        trial.number for trial in complete[:n_configs] for _ in range(first - done[trial.number])
    ]
    if missing:
        return missing

    noise = measure_noise(trials)
    tied = [] if noise is None else [group for group in noise.groups if not group.differs]
    if len(tied) < 2:
        return []
    more = [group.trial for group in tied if done[group.trial] < limit]
    return more if cap is not None else more[: max(0, affordable - len(repeats))]


def open_repeats_sentence(trials: Sequence[FrozenTrial]) -> str:
    """Return a sentence if seed repeats wait or train, otherwise an empty text."""
    n = count_open_repeats(trials)
    verb = "is" if n == 1 else "are"
    return f"{counted(n, 'seed repeat')} {verb} left, and the winner may change." if n else ""


def count_open_repeats(trials: Sequence[FrozenTrial]) -> int:
    """Return how many seed repeats wait or train."""
    repeats = [trial for trial in trials if "repeat_of" in trial.user_attrs]
    return sum(not trial.state.is_finished() for trial in repeats)


def _affordable(trials: Sequence[FrozenTrial]) -> int:
    """Return how many whole trainings the default budget pays for."""
    steps = [
        max(trial.intermediate_values, default=0) for trial in trials if not is_follow_up(trial)
    ]
    return round(SHARE * sum(steps) / max(steps)) if any(steps) else 0
