"""The decorator of everything that Numba compiles."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile the function for the types of its arguments, at its first call with them.

    It releases Python's global lock (see `minidl.kernels.threads`), divides by zero as NumPy does, and is kept on disk
    for the next process. Where that cannot be, each process compiles anew.

    Numba watches only the file that holds the function: do not call a compiled function of another file.
    """
    try:
        kernel: Any = njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # "cannot cache function …: no locator available"
        return cast(F, njit(nogil=True, error_model="numpy")(function))
    cache = kernel._cache
    cache.load_overload, cache.save_overload = _attempt(cache.load_overload), _attempt(cache.save_overload)
    return cast(F, kernel)


def _attempt(step: Callable[..., Any]) -> Callable[..., Any]:
    """The step, or nothing where it fails: a damaged file or a full disk must cost a compilation, and no more."""

    def attempt(*args: Any) -> Any:
        with suppress(Exception):
            return step(*args)
        return None

    return attempt
