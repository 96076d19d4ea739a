"""The learning curves that make_curves.py measured, and a model that predicts new ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

HERE = Path(__file__).parent
# "tpe": 300 trials of a search by TPE over the five parameters, in their order; only the curves.
FILES = {
    "five": "curves_five.csv.gz",
    "tpe": "../studies/harness/report/judge/curves_five.csv.gz",
    "wide": "learning_curves.csv.gz",
}
STRIDE = {"five": 2, "tpe": 2, "wide": 1}  # a study evaluates 10 times, studies/record.py 20 times
KINDS = ("weights", "average")
COLUMNS = {"weights": "dev", "average": "average"}
FLOOR = 1.9  # nats; the model predicts log(loss - FLOOR), which is most exact near the best
WORST = 4.0  # nats; diverged trainings count as this in the model
NEIGHBOURS = 30
CUT = 0.05  # of log(loss - FLOOR), about 0.008 nats near the best; larger errors are not noise


@dataclass(frozen=True)
class Table:
    """N trainings without a pruner.

    Attributes:
        params: (N, D) frame of the searched parameters; without columns if they are not known.
        by_tpe: (N,) bool, proposed by TPE; all False if the table does not tell.
        curves: for each of KINDS, (N, P) float64 dev losses in nats at P evenly spaced steps; inf
            after divergence.
    """

    params: pd.DataFrame
    by_tpe: np.ndarray
    curves: dict[str, np.ndarray]

    def lowest(self, kind: str) -> np.ndarray:
        """Return (N,) the lowest loss of each training; inf if it did not reach its end."""
        curves = self.curves[kind]
        return np.where(np.isfinite(curves[:, -1]), curves.min(axis=1), np.inf)

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Return up to n trainings: in their order if the table is a search, else at random.

        If the table has proposals of TPE, the order resembles a search: the later a draw, the more
        often it is one of them. It ends when they run out.
        """
        if self.params.empty:
            return np.arange(min(n, len(self.by_tpe)))
        order = rng.permutation(len(self.params))
        if not self.by_tpe.any():
            return order[:n]
        proposed, spread = list(order[self.by_tpe[order]]), list(order[~self.by_tpe[order]])
        drawn: list[int] = []
        while proposed and spread and len(drawn) < n:
            by_tpe = rng.random() < len(drawn) / (len(drawn) + 30)
            drawn.append((proposed if by_tpe else spread).pop())
        return np.array(drawn)


@cache
def read_table(space: str) -> Table:
    """Read the table of a space, a key of FILES."""
    frame = pd.read_csv(HERE / FILES[space])
    curves = {}
    for kind in KINDS:
        columns = [f"{COLUMNS[kind]}_{i}" for i in range(STRIDE[space], 21, STRIDE[space])]
        curves[kind] = frame[columns].fillna(np.inf).to_numpy()
    by_tpe = frame.get("by_tpe", pd.Series(0, frame.index)) > 0
    others = ["number", "by_tpe", "seconds", "dev_1"]
    params = frame.loc[:, :"dev_1"].drop(columns=others, errors="ignore")
    return Table(params, by_tpe.to_numpy(), curves)


def rank_correlations(table: Table, kind: str) -> dict[str, list[float]]:
    """Return how well early losses rank the trainings.

    Returns:
        Spearman's correlation of the loss at 10, 20, 40, 50 and 60% of the steps with the lowest
        loss; over all trainings, and over the best quarter.
    """
    curves = pd.DataFrame(table.curves[kind])
    lowest = pd.Series(table.lowest(kind))
    best = lowest.nsmallest(len(lowest) // 4).index
    columns = [curves.shape[1] * percent // 100 - 1 for percent in (10, 20, 40, 50, 60)]
    return {
        "all": [curves[c].corr(lowest, method="spearman") for c in columns],
        "best quarter": [curves[c][best].corr(lowest[best], method="spearman") for c in columns],
    }


class CurveModel:
    """Predicts the curve of any parameters of the five-parameter space.

    The mean is a small neural net's. To it comes the error that the net makes at one of the
    NEIGHBOURS nearest trainings, drawn at random and cut: so a curve has the noise of a training.

    Args:
        kind: one of KINDS.

    Attributes:
        held_out: Spearman's correlation of predicted and measured lowest losses, for the best
            quarter of the trainings that the net did not see.
    """

    def __init__(self, kind: str) -> None:
        table = read_table("five")
        self._places = places(table.params)
        curves = np.log(np.minimum(table.curves[kind], WORST) - FLOOR)
        order = np.random.default_rng(0).permutation(len(curves))
        test, train = order[: len(order) // 10], order[len(order) // 10 :]
        net = self._fit(self._places[train], curves[train])
        lowest = pd.Series(curves[test].min(axis=1))
        predicted = pd.Series(net.predict(self._places[test]).min(axis=1))
        best = lowest.nsmallest(len(lowest) // 4).index
        self.held_out = float(lowest[best].corr(predicted[best], method="spearman"))
        self._net = self._fit(self._places, curves)
        self._errors = np.clip(curves - self._net.predict(self._places), -CUT, CUT)

    @staticmethod
    def _fit(x: np.ndarray, y: np.ndarray) -> Any:
        net = MLPRegressor(
            hidden_layer_sizes=(32, 32), solver="lbfgs", alpha=0.01, max_iter=1500, random_state=0
        )
        return make_pipeline(StandardScaler(), net).fit(x, y)

    def curve(
        self, params: dict[str, Any], rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (P,) a curve with noise and (P,) its mean, in nats."""
        place = places(pd.DataFrame([params]))
        mean = self._net.predict(place)[0]
        nearest = ((self._places - place) ** 2).sum(axis=1).argpartition(NEIGHBOURS)[:NEIGHBOURS]
        error = self._errors[rng.choice(nearest)]
        return FLOOR + np.exp(mean + error), FLOOR + np.exp(mean)


@cache
def curve_model(kind: str) -> CurveModel:
    """Return the model of a kind of curves; fitted once in a process."""
    return CurveModel(kind)


def places(params: pd.DataFrame) -> np.ndarray:
    """Return (N, 5) parameters on scales from 0 to 1; lr and batch_size are logarithmic."""
    lr, batch = np.log10(params["lr"]), np.log2(params["batch_size"])
    columns = [(lr + 3) / 3, (params["block_size"] - 2) / 6, (params["n_embd"] - 2) / 22]
    columns += [(params["n_hidden"] - 50) / 250, (batch - 5) / 3]
    return np.stack([np.asarray(column, np.float64) for column in columns], axis=1)
