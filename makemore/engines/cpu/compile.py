"""How the CPU kernel becomes machine code, where that is kept, and what the user is told of it."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import event

# A product and a sum may fuse into one rounding. More of fast-math gained nothing here, and its promise that no value
# is inf or nan would compile the check for divergence away. error_model="numpy": Python's check for a division by zero
# would keep LLVM from vectorising.
OPTIONS: dict[str, Any] = {"fastmath": {"contract"}, "nogil": True, "error_model": "numpy"}
INSIDE: dict[str, Any] = {
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}  # a tenth of the compile time
PARTS = (
    "compile",
    "kernel",
    "lanes",
    "layers",
    "memory",
    "products",
)  # modules that hold compiled code
SECONDS = 10  # that compiling takes at most, on a core of 2024


def inlined(function: Callable[..., Any]) -> Any:
    """A part of the kernel: compiled with what calls it, and kept with that; Python itself cannot call it."""
    return numba.njit(**OPTIONS, **INSIDE)(function)


def source_number() -> int:
    """A number that changes with the source of any part of the kernel.

    numba keeps machine code by the source of a function's own file, and would run old code after a change of a file
    that the function calls into. A number that the function closes over is part of the key as well.
    """
    here = Path(__file__)
    parts = [here.parents[2] / "draws.py", *sorted(here.with_name(f"{name}.py") for name in PARTS)]
    return int.from_bytes(
        hashlib.sha256(b"".join(part.read_bytes() for part in parts)).digest()[:7], "little"
    )


class EntryPoint(event.Listener):
    """A function of the kernel that Python calls: compiled on its first call, and kept on disk for other processes.

    Says on stderr when it compiles, since that is the only time that a first step takes seconds. Where no folder can
    be written, it says so, and compiles for this process alone.
    """

    _said: set[str] = set()

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._dispatcher: Any = None

    def __call__(self, *args: Any) -> Any:
        if self._dispatcher is None:
            event.register("numba:compile", self)
            self._dispatcher = self._cached()
        try:
            return self._dispatcher(*args)
        except OSError:  # the folder has gone, or the disk is full
            self._dispatcher = self._uncached()
            return self._dispatcher(*args)

    def _cached(self) -> Any:
        try:
            return numba.njit(cache=True, **OPTIONS)(self._function)
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            return self._uncached()

    def _uncached(self) -> Any:
        self._say(
            "The CPU kernel's machine code cannot be kept; set NUMBA_CACHE_DIR to a folder that can be written."
        )
        return numba.njit(**OPTIONS)(self._function)

    def on_start(self, event: event.Event) -> None:
        """numba begins to compile something."""
        if event.data["dispatcher"] is self._dispatcher:
            self._say(f"Compiling the CPU kernel: once, about {SECONDS} s.")

    def on_end(self, event: event.Event) -> None:
        """numba has compiled something."""

    @classmethod
    def _say(cls, sentence: str) -> None:
        if sentence not in cls._said:
            cls._said.add(sentence)
            print(sentence, file=sys.stderr, flush=True)
