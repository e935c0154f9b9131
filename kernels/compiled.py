"""The decorator of everything that Numba compiles, and code that is written before it is compiled."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from contextlib import suppress
from types import FunctionType
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

from minidl.arrays import Array, DTypeLike

F = TypeVar("F", bound=Callable[..., Any])
log = logging.getLogger("minidl")
_told: set[int] = set()


def compiled(function: F) -> F:
    """Compile the function for the types of its arguments, at its first call with them.

    It releases Python's global lock (see `minidl.kernels.threads`), divides by zero as NumPy does, and is kept on disk
    for the next process. Where that cannot be, each process compiles anew, and says so.

    Numba watches only the file that holds the function: do not call a compiled function of another file.
    """
    try:
        kernel: Any = njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError as error:  # "cannot cache function …: no locator available"
        _tell_that_nothing_is_kept(error)
        return cast(F, njit(nogil=True, error_model="numpy")(function))
    cache = kernel._cache
    load, save = cache.load_overload, cache.save_overload

    # A damaged file or a full disk costs a compilation, and no more.
    def load_overload(*args: Any) -> Any:
        with suppress(Exception):
            known = load(*args)
            if known is not None:
                return known
        _tell_that_it_takes_time(cache.cache_path)
        return None

    def save_overload(*args: Any) -> None:
        try:
            save(*args)
        except Exception as error:
            _tell_that_nothing_is_kept(error)

    cache.load_overload, cache.save_overload = load_overload, save_overload
    return cast(F, kernel)


def _tell_that_it_takes_time(path: str) -> None:
    _tell(logging.INFO, f"compiling kernels, to be kept in {path}; 'minidl warmup' compiles all of them ahead")


def _tell_that_nothing_is_kept(error: Exception) -> None:
    cure = "every process compiles them anew; set NUMBA_CACHE_DIR to a folder that can be written"
    _tell(logging.WARNING, f"compiled kernels cannot be kept on disk ({error}): {cure}")


def _tell(level: int, news: str) -> None:
    """Log something once in a process: after the first kernel it is no news."""
    if level not in _told:
        _told.add(level)
        log.log(level, news)


def compiled_with(source: str, template: F, dtype: DTypeLike) -> F:
    """Compile a template together with a function that it calls, which is given as source code for numbers of a dtype.

    What depends on a matrix or a size is so written out, without loops: factors and sums stay in registers. Both get a
    checksum of the source into their names: Numba would not see on disk that it has changed, and would link one such
    function for another.
    """
    variables: dict[str, Any] = {"__name__": template.__module__, "np": np, "real": np.dtype(dtype).type}
    known = set(variables)
    exec(source, variables)
    (name,) = variables.keys() - known - {"__builtins__"}
    checksum = f"{zlib.crc32(f'{np.dtype(dtype)} {source}'.encode()):08x}"
    called = njit(nogil=True, error_model="numpy")(_named(f"{name}_{checksum}", variables[name], variables))
    return cast(F, compiled(_named(f"{template.__name__}_{checksum}", template, {name: called})))


def _named(name: str, function: Any, variables: dict[str, Any]) -> FunctionType:
    """The same function by another name, which finds other global variables."""
    copy = FunctionType(function.__code__, {**function.__globals__, **variables}, name)
    copy.__qualname__ = name
    return copy


def product_with(matrix: Array) -> str:
    """The source code of a function that multiplies n columns by the matrix.

    It reads column c of a matrix of `len(matrix[0])` rows, which lie `step` numbers apart and begin at source[at], and
    writes the product to target[to], its rows `row` numbers apart.

    >>> print(product_with(np.array([[1, -1, 0], [0, 0.5, 2]])))
    def multiply(source, at, step, target, to, row, n):
        for c in range(n):
            x0 = source[np.uintp(at + 0 * step + c)]
            x1 = source[np.uintp(at + 1 * step + c)]
            x2 = source[np.uintp(at + 2 * step + c)]
            target[np.uintp(to + 0 * row + c)] = x0 - x1
            target[np.uintp(to + 1 * row + c)] = real(0.5) * x1 + real(2.0) * x2
    """
    rows, columns = matrix.shape
    lines = ["def multiply(source, at, step, target, to, row, n):", "    for c in range(n):"]
    lines += [f"        x{k} = source[np.uintp(at + {k} * step + c)]" for k in range(columns)]
    for i in range(rows):
        terms = [_term(float(factor), f"x{k}") for k, factor in enumerate(matrix[i]) if factor]
        lines.append(f"        target[np.uintp(to + {i} * row + c)] = {_sum(terms)}")
    return "\n".join(lines)


def _term(factor: float, x: str) -> str:
    sign = "-" if factor < 0 else "+"
    return f"{sign} {x}" if abs(factor) == 1 else f"{sign} real({abs(factor)!r}) * {x}"


def _sum(terms: list[str]) -> str:
    return " ".join(terms).removeprefix("+ ")
