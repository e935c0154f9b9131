"""Sums over everything but the channels on the CPU, in float64.

One version. Median gain over the body, float32, batch 32, two threads
(benchmarks/results/kernels_cpu.md): 1.9× at 55×55×96, 2.0× at 27×27×256.
"""

from __future__ import annotations

import numpy as np

from minidl.arrays import Array
from minidl.kernels.compiled import compiled
from minidl.kernels.threads import split

BLOCK = 1024  # rows that one thread sums: fixed, so that the result does not depend on the number of threads


def channel_sum(x: Array) -> Array:
    """See `minidl.ops.channel_sum`, and the same bits for any number of threads."""
    C = x.shape[-1]
    rows = x.reshape(-1, C)
    totals = np.zeros((-(-len(rows) // BLOCK), C))
    split(len(totals), _sum, rows, totals)
    total: Array = totals.sum(axis=0).astype(x.dtype)
    return total


def channel_dot(x: Array, y: Array) -> Array:
    """See `minidl.ops.channel_sum`, and the same bits for any number of threads."""
    C = x.shape[-1]
    rows = x.reshape(-1, C)
    totals = np.zeros((-(-len(rows) // BLOCK), C))
    split(len(totals), _dot, rows, y.reshape(-1, C), totals)
    total: Array = totals.sum(axis=0).astype(x.dtype)
    return total


@compiled
def _sum(x: Array, totals: Array, start: int, stop: int) -> None:
    for block in range(start, stop):
        total = totals[block]
        for r in range(block * BLOCK, min((block + 1) * BLOCK, len(x))):
            row = x[r]
            for c in range(len(row)):
                total[c] += row[c]


@compiled
def _dot(x: Array, y: Array, totals: Array, start: int, stop: int) -> None:
    for block in range(start, stop):
        total = totals[block]
        for r in range(block * BLOCK, min((block + 1) * BLOCK, len(x))):
            row, other = x[r], y[r]
            for c in range(len(row)):
                total[c] += row[c] * other[c]
