"""The decorator of everything that Numba compiles, and code that is written out before it is compiled."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import suppress
from types import FunctionType
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

from minidl.arrays import Array

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


def compiled_for(matrix: Array, template: F) -> F:
    """Compile a template in which `multiply` stands for the product with this matrix, written out number by number.

    A loop over the matrix would fetch its factors and its sums from memory again and again; written out, they stay in
    registers (4×). Both names get a checksum of what was written: Numba would not see on disk that it has changed, and
    would link one product for another.
    """
    source = written_out(matrix)
    checksum = f"{zlib.crc32(f'{matrix.dtype} {source}'.encode()):08x}"
    namespace: dict[str, Any] = {"__name__": template.__module__, "np": np, "real": matrix.dtype.type}
    exec(source, namespace)
    multiply = njit(nogil=True, error_model="numpy")(_named(f"multiply_{checksum}", namespace["multiply"], namespace))
    return cast(F, compiled(_named(f"{template.__name__}_{checksum}", template, {"multiply": multiply})))


def _named(name: str, function: Any, variables: dict[str, Any]) -> FunctionType:
    """The same function by another name, which finds other global variables."""
    copy = FunctionType(function.__code__, {**function.__globals__, **variables}, name)
    copy.__qualname__ = name
    return copy


def written_out(matrix: Array) -> str:
    """A function that multiplies n columns by the matrix, as source code without inner loops.

    It reads column c of a matrix of `len(matrix[0])` rows, which lie `step` numbers apart and begin at source[at], and
    writes the product to target[to], its rows `row` numbers apart.

    >>> print(written_out(np.array([[1, -1, 0], [0, 0.5, 2]])))
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
