"""Batch normalisation on the CPU: one pass over memory for each sum, and one for what comes of them.

One version, of the same bits as the bodies. Median gain over them, float32, batch 32, two threads
(benchmarks/results/kernels_cpu.md), at 55×55×96 and 27×27×256: statistics 1.9× and 1.6×, forward 2.4× and 2.3×,
parameters' gradients 2.6× and 2.3×, gradient 4.6× and 3.8×.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minidl.arrays import NHWC, Array
from minidl.kernels.channel_sum import BLOCK, channel_sum
from minidl.kernels.compiled import compiled
from minidl.kernels.threads import split


def batch_statistics(x: NHWC) -> tuple[Array, Array, Array]:
    """See `minidl.ops.batch_norm2d`, and the same bits for any number of threads."""
    m, rows = x.dtype.type(x.size // x.shape[-1]), x.reshape(-1, x.shape[-1])
    mean = channel_sum(x) / m
    rest = _summed(_centred, rows, mean) / m
    return mean, rest, _summed(_squares, rows, mean, rest) / m


def batch_norm2d(x: NHWC, mean: Array, rest: Array, inv_std: Array, gamma: Array, beta: Array) -> NHWC:
    """See `minidl.ops.batch_norm2d`."""
    y = np.empty_like(x)
    shape = -1, x.shape[-1]
    split(x.size // shape[1], _normalise, x.reshape(shape), y.reshape(shape), mean, rest, gamma * inv_std, beta)
    return y


def batch_norm2d_parameter_gradients(
    dy: NHWC, x: NHWC, mean: Array, rest: Array, inv_std: Array
) -> tuple[Array, Array]:
    """See `minidl.ops.batch_norm2d`, and the same bits for any number of threads."""
    shape = -1, x.shape[-1]
    return _summed(_products, dy.reshape(shape), x.reshape(shape), mean, rest, inv_std), channel_sum(dy)


def batch_norm2d_input_gradient(
    dy: NHWC, x: NHWC, mean: Array, rest: Array, inv_std: Array, gamma: Array, dgamma: Array, dbeta: Array
) -> NHWC:
    """See `minidl.ops.batch_norm2d`."""
    dx = np.empty_like(x)
    shape, m = (-1, x.shape[-1]), x.dtype.type(x.size // x.shape[-1])
    arrays = dy.reshape(shape), x.reshape(shape), dx.reshape(shape)
    numbers = mean, rest, inv_std, gamma * inv_std, dgamma / m, dbeta / m
    split(x.size // shape[1], _input_gradient, *arrays, *numbers)
    return dx


def _summed(body: Callable[..., None], *arrays: Array) -> Array:
    """Sums over rows for each channel, as body(*arrays, totals, start, stop) makes them for some blocks.

    A body makes one sum: Numba's loops with two are not vectorised, and take longer than two passes over memory.
    """
    rows = arrays[0]
    totals = np.zeros((-(-len(rows) // BLOCK), rows.shape[1]))
    split(len(totals), body, *arrays, totals)
    sums: Array = totals.sum(axis=0).astype(rows.dtype)
    return sums


@compiled
def _centred(x: Array, mean: Array, totals: Array, start: int, stop: int) -> None:
    for block in range(start, stop):
        total = totals[block]
        for r in range(block * BLOCK, min((block + 1) * BLOCK, len(x))):
            row = x[r]
            for c in range(len(row)):
                total[c] += row[c] - mean[c]


@compiled
def _squares(x: Array, mean: Array, rest: Array, totals: Array, start: int, stop: int) -> None:
    for block in range(start, stop):
        total = totals[block]
        for r in range(block * BLOCK, min((block + 1) * BLOCK, len(x))):
            row = x[r]
            for c in range(len(row)):
                total[c] += (row[c] - mean[c] - rest[c]) ** 2


@compiled
def _products(
    dy: Array, x: Array, mean: Array, rest: Array, inv_std: Array, totals: Array, start: int, stop: int
) -> None:
    for block in range(start, stop):
        total = totals[block]
        for r in range(block * BLOCK, min((block + 1) * BLOCK, len(x))):
            given, row = dy[r], x[r]
            for c in range(len(row)):
                total[c] += given[c] * ((row[c] - mean[c] - rest[c]) * inv_std[c])


@compiled
def _normalise(x: Array, y: Array, mean: Array, rest: Array, scale: Array, beta: Array, start: int, stop: int) -> None:
    for r in range(start, stop):
        row, out = x[r], y[r]
        for c in range(len(row)):
            out[c] = (row[c] - mean[c] - rest[c]) * scale[c] + beta[c]


@compiled
def _input_gradient(
    dy: Array, x: Array, dx: Array, mean: Array, rest: Array, inv_std: Array, scale: Array, dgamma: Array, dbeta: Array,
    start: int, stop: int,
) -> None:  # fmt: skip
    for r in range(start, stop):
        given, row, out = dy[r], x[r], dx[r]
        for c in range(len(row)):
            out[c] = (given[c] - dbeta[c] - (row[c] - mean[c] - rest[c]) * inv_std[c] * dgamma[c]) * scale[c]
