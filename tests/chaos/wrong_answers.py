"""Wrong answers of the proxy in front of an MLflow server, as a schedule draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.servers import EMPTY, ERRORS, FORWARD, HTML, LOSE, LOSE_504, Choose

ANSWERS = {"5xx": ERRORS, "lost reply": (LOSE, LOSE_504), "false 200": (HTML, EMPTY)}


@dataclass
class WrongAnswer:
    """What the proxy does to some requests.

    Attributes:
        kind: "5xx", "lost reply" or "false 200".
        where: part of the paths of these requests.
        skip: how many of them are answered correctly before.
        count: how many are answered wrongly.
        done: how many were answered wrongly so far.
    """

    kind: str
    where: str
    skip: int
    count: int
    done: int = 0


def choose_from(wrong: Sequence[WrongAnswer]) -> Choose:
    """Return the proxy's rule: the wrong answers of a kind come in turn."""

    def choose(method: str, path: str, times: int) -> str:
        for answer in wrong:
            if answer.done < answer.count and answer.where in path:
                if not answer.skip:
                    answer.done += 1
                    return ANSWERS[answer.kind][answer.done % len(ANSWERS[answer.kind])]
                answer.skip -= 1
        return FORWARD

    return choose
