"""Checks of the flags of studies/lr_sweep.py."""

from __future__ import annotations

from typing import Any

from makemore.errors import UserError
from studies.harness.cli.script import given_flags
from studies.harness.store.text import check_study_name

# makemore.lr_sweep.MIN_POINTS; repeated here because that module imports torch.
MIN_RANGE_STEPS = 10

# The flags that an audit reads. It has its own models and ranges, so no other flag has an effect.
AUDIT_FLAGS = frozenset(
    "audit json names range_steps seed steps stop study tracking_uri workers".split()
)


def check_sweep_args(args: Any) -> None:
    """Check the flags before anything slow is imported.

    Raises:
        UserError: a value is out of range, or a flag has no effect; names the flag.
    """
    check_study_name(args.study)
    if not 0 < args.lo < args.hi:
        raise UserError(
            f"--lo and --hi must be learning rates, 0 < lo < hi, but got {args.lo} and {args.hi}."
        )
    for flag, value, least in (
        ("--trials", args.trials, 0),
        ("--range-steps", args.range_steps, MIN_RANGE_STEPS),
        ("--seed", args.seed or 0, 0),
        ("--steps", args.steps, 1),
        ("--workers", 1 if args.workers is None else args.workers, 1),
    ):
        if value < least:
            raise UserError(f"{flag} must be at least {least}, but got {value}.")
    if args.range and args.trials == 0 and not args.audit:
        raise UserError(
            "--range needs --trials: the range test takes its learning rates from --lo and --hi; "
            f"leave out --range {args.range[0]}."
        )
    unused = given_flags(args, exclude=AUDIT_FLAGS) if args.audit else []
    if unused:
        raise UserError(
            "--audit has its own models and ranges of learning rates; leave out "
            f"{' '.join(unused)}."
        )
