"""Compiles the CPU kernel with numba, caches the machine code on disk and informs the user."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import event

from makemore.errors import UserError

# "contract" lets the compiler fuse a product and a sum into one rounding. More of fast-math gained
# nothing, and its promise that no value is inf or nan would remove the check for divergence.
# error_model="numpy": Python's check for a division by zero would prevent vectorisation.
OPTIONS: dict[str, Any] = {"fastmath": {"contract"}, "nogil": True, "error_model": "numpy"}
# Leaving out the wrappers saves a tenth of the compile time.
NO_WRAPPERS: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
# The modules of this folder that hold compiled code.
KERNEL_MODULES = ("compile", "kernel", "lanes", "layers", "memory", "products")
# Upper bound of the compile time on a core of 2024.
SECONDS = 10


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a function as a part of the kernel: other parts can call it, Python cannot."""
    return numba.njit(**OPTIONS, **NO_WRAPPERS)(function)


def check_compiler() -> None:
    """Refuse to run the kernel as Python code, which it cannot.

    Raises:
        UserError: the environment turns numba's compiler off.
    """
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        raise UserError(
            "NUMBA_DISABLE_JIT turns off the compiler that training on a CPU needs; unset it."
        )


def source_number() -> int:
    """Return a number that changes with the source of any part of the kernel.

    numba's cache depends on the file of the compiled function only. After a change in a file that
    the function calls into, numba would run the old code. A number that the function closes over is
    part of the cache's key, so this number forces a new compilation.
    """
    here = Path(__file__)
    files = [here.parents[2] / "draws.py"]
    files += sorted(here.with_name(f"{name}.py") for name in KERNEL_MODULES)
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).digest()
    return int.from_bytes(digest[:7], "little")


class EntryPoint(event.Listener):
    """A kernel function that Python calls; compiled at its first call and cached on disk.

    Prints one line on stderr when it compiles, because the first step then takes seconds. If no
    cache folder is writable, it says so and compiles for this process only.
    """

    _printed: set[str] = set()

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._dispatcher: Any = None

    def __call__(self, *args: Any) -> Any:
        if self._dispatcher is None:
            check_compiler()
            event.register("numba:compile", self)
            self._dispatcher = self._cached()
        try:
            return self._dispatcher(*args)
        except OSError:  # the cache folder was deleted, or the disk is full
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
        self._print_once(
            "The CPU kernel's machine code cannot be cached on disk; "
            "set NUMBA_CACHE_DIR to a writable folder."
        )
        return numba.njit(**OPTIONS)(self._function)

    def on_start(self, event: event.Event) -> None:
        """Called by numba when it starts to compile a function."""
        if event.data["dispatcher"] is self._dispatcher:
            self._print_once(f"Compiling the CPU kernel: once, about {SECONDS} s.")

    def on_end(self, event: event.Event) -> None:
        """Called by numba when it has compiled a function."""

    @classmethod
    def _print_once(cls, sentence: str) -> None:
        if sentence not in cls._printed:
            cls._printed.add(sentence)
            print(sentence, file=sys.stderr, flush=True)
