"""Sums over everything but the channels on the GPU: kernels/channel_sum.cu."""

from __future__ import annotations

import numpy as np

from minidl.arrays import Array
from minidl.kernels.cuda import Source, empty, over_channels, shares, vector

CUDA = Source("channel_sum")


def channel_sum(x: Array) -> Array:
    """See `minidl.ops.channel_sum`, and the same bits on any GPU."""
    return _summed("channel_sum", x)


def channel_dot(x: Array, y: Array) -> Array:
    """See `minidl.ops.channel_sum`, and the same bits on any GPU."""
    return _summed("channel_dot", x, y)


def _summed(name: str, *arrays: Array) -> Array:
    x = arrays[0]
    C = x.shape[-1]
    rows, V = x.size // C, vector(C, *arrays)
    grid, block = shares(rows, C, V)
    partials, total = empty((grid[0], C), np.float64, x), empty((C,), x.dtype, x)
    CUDA.launch(name, (x.dtype, V), grid, block, *arrays, partials, rows, C)
    CUDA.launch("channel_total", (x.dtype,), *over_channels(C, grid[0]), partials, total, grid[0], C)
    return total
