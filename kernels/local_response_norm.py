"""Local response normalisation on the CPU, in one pass.

One version, with β = ¾ by square roots instead of a power. Median gain over the body, float32, batch 32, two threads
(benchmarks/results/kernels_cpu.md): forward 6.8×, gradient 13.5× at 55×55×96; 6.9× and 17× at 27×27×256.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from minidl.arrays import Array, DTypeLike
from minidl.kernels.compiled import compiled_with
from minidl.kernels.threads import split

GRAIN = 1 << 16  # numbers that are worth a thread: a root, a quotient and a window for each


def local_response_norm(x: Array, size: int, scale: float, beta: float, k: float, groups: int = 1) -> Array:
    """See `minidl.ops.local_response_norm`. β = ¾ takes square roots instead of a power."""
    y = np.empty_like(x)
    shape, real = (-1, x.shape[-1] // groups), x.dtype.type
    numbers = real(scale), real(beta), real(k)
    kernel = _kernel(_forward, size, x.dtype)
    split(x.size // shape[1], kernel, x.reshape(shape), y.reshape(shape), size, *numbers, grain=GRAIN)
    return y


def local_response_norm_gradient(
    dy: Array, x: Array, size: int, scale: float, beta: float, k: float, groups: int = 1
) -> Array:
    """See `minidl.ops.local_response_norm`. β = ¾ takes square roots instead of a power."""
    dx = np.empty_like(x)
    shape, real = (-1, x.shape[-1] // groups), x.dtype.type
    arrays = dy.reshape(shape), x.reshape(shape), dx.reshape(shape)
    numbers = real(scale), real(beta), real(k), real(2 * beta * scale)
    split(x.size // shape[1], _kernel(_backward, size, x.dtype), *arrays, size, *numbers, grain=GRAIN)
    return dx


@cache
def _kernel(template: Callable[..., None], size: int, dtype: DTypeLike) -> Any:
    terms = " + ".join(f"row[np.uintp(at + {k})]" for k in range(size))
    return compiled_with(f"def _window_sum(row, at):\n    return {terms}", template, dtype)


def _window_sum(row: Array, at: int) -> float:
    """The sum of `size` neighbours in a row, for which `compiled_with` puts in code of its own."""
    raise NotImplementedError


# The kernels take one group of one pixel at a time, so that all of it stays in the first cache. What a window sums
# stands in a row with zeros on both sides: the sum has no branches, and every loop runs over neighbouring channels.
# Indices that are not plainly positive are unsigned, or the loop would test for Python's x[-1] and not be vectorised.


def _forward(x: Array, y: Array, size: int, scale: float, beta: float, k: float, start: int, stop: int) -> None:
    C = x.shape[1]
    squares = np.zeros(C + size - 1, x.dtype)
    before, one = (size - 1) // 2, x.dtype.type(1)
    for p in range(start, stop):
        a, out = x[p], y[p]
        for c in range(C):
            squares[np.uintp(before + c)] = scale * a[c] * a[c]
        if beta == 0.75:
            for c in range(C):
                root = np.sqrt(k + _window_sum(squares, c))
                out[c] = a[c] * (one / (root * np.sqrt(root)))
        else:
            for c in range(C):
                out[c] = a[c] * (k + _window_sum(squares, c)) ** -beta


def _backward(
    dy: Array, x: Array, dx: Array, size: int, scale: float, beta: float, k: float, twice: float, start: int, stop: int
) -> None:
    C = x.shape[1]
    squares, turned = np.zeros(C + size - 1, x.dtype), np.zeros(C + size - 1, x.dtype)
    factor = np.empty(C, x.dtype)  # s^(−β)
    before, after, one = (size - 1) // 2, size // 2, x.dtype.type(1)
    for p in range(start, stop):
        a, given, out = x[p], dy[p], dx[p]
        for c in range(C):
            squares[np.uintp(before + c)] = scale * a[c] * a[c]
        if beta == 0.75:
            for c in range(C):
                s = k + _window_sum(squares, c)
                root = np.sqrt(s)
                factor[c] = one / (root * np.sqrt(root))
                turned[np.uintp(after + c)] = given[c] * a[c] * factor[c] / s
        else:
            for c in range(C):
                s = k + _window_sum(squares, c)
                factor[c] = s**-beta
                turned[np.uintp(after + c)] = given[c] * a[c] * factor[c] / s
        for c in range(C):
            out[c] = given[c] * factor[c] - twice * a[c] * _window_sum(turned, c)
