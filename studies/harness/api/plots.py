"""Pictures and the report of a study, which a notebook displays."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from makemore.errors import check_output, writing

if TYPE_CHECKING:
    import optuna
    from matplotlib.figure import Figure

    from studies.harness.report.results import Results

PAGE_HEIGHT = 640  # pixels of the report in a notebook


@dataclass(frozen=True)
class Picture:
    """A picture that a notebook displays.

    Attributes:
        figure: of matplotlib, to change or save it.
    """

    figure: Figure

    def save(self, path: Path | str) -> Path:
        """Write a PNG file, and return its path.

        Raises:
            UserError: the file cannot be written.
        """
        path = check_output(path, "path")
        with writing(path, "path"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._repr_png_())
        return path

    def _repr_png_(self) -> bytes:
        from studies.harness.report.figures.style import look, save_png

        png = io.BytesIO()
        with look():
            save_png(self.figure, png)
        return png.getvalue()


class Plots:
    """The pictures of a study; each call reads the study again."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study

    def history(self) -> Picture:
        """The dev loss of each trial by its number, and the best so far."""
        from studies.harness.report.figures.pictures import history

        return self._draw(history)

    def curves(self) -> Picture:
        """The dev loss of each trial by training step."""
        from studies.harness.report.figures.pictures import curves

        return self._draw(curves)

    def slices(self) -> Picture:
        """The dev loss by each parameter."""
        from studies.harness.report.figures.pictures import slices

        return self._draw(slices)

    def importances(self) -> Picture:
        """The importance of each parameter."""
        from studies.harness.report.figures.pictures import importances

        return self._draw(importances)

    def parallel(self) -> Picture:
        """A line for each trial through its parameters to its dev loss."""
        from studies.harness.report.figures.pictures import parallel

        return self._draw(parallel)

    def _draw(self, draw: Callable[[Results], Figure]) -> Picture:
        from studies.harness.report.figures.style import look
        from studies.harness.report.results import read_results

        with look():
            return Picture(draw(read_results(self._study)))


@dataclass(frozen=True)
class Page:
    """The report of a study, which a notebook shows in a frame.

    Attributes:
        path: the HTML file, for a browser.
        missing: a sentence about the parts that the report lacks; empty if it has everything.
    """

    path: Path
    missing: str = ""

    def _repr_html_(self) -> str:
        page = escape(self.path.read_text(encoding="utf-8"))
        style = f"width: 100%; height: {PAGE_HEIGHT}px; border: 1px solid #ccc"
        return f'<iframe srcdoc="{page}" style="{style}"></iframe>'
