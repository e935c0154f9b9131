"""Batch normalisation on the GPU: kernels/batch_norm2d.cu."""

from __future__ import annotations

import numpy as np

from minidl.arrays import NHWC, Array
from minidl.kernels.cuda import Source, empty, empty_like, over_channels, shares, vector

CUDA = Source("batch_norm2d")


def batch_statistics(x: NHWC) -> tuple[Array, Array, Array]:
    """See `minidl.ops.batch_norm2d`. One pass, and the same bits on any GPU; of half precision, in float32."""
    C = x.shape[-1]
    partials, count = _partials("batch_sums", x)
    mean, rest, var = (empty((C,), np.promote_types(x.dtype, np.float32), x) for _ in range(3))
    grid, block = over_channels(C, count)
    CUDA.launch("batch_statistics", (x.dtype,), grid, block, partials, x, mean, rest, var, count, x.size // C, C)
    return mean, rest, var


def batch_norm2d(x: NHWC, mean: Array, rest: Array, inv_std: Array, gamma: Array, beta: Array) -> NHWC:
    """See `minidl.ops.batch_norm2d`."""
    return _each_row("batch_norm2d", x, mean, rest, inv_std, gamma, beta)


def batch_norm2d_parameter_gradients(
    dy: NHWC, x: NHWC, mean: Array, rest: Array, inv_std: Array
) -> tuple[Array, Array]:
    """See `minidl.ops.batch_norm2d`. One pass, and the same bits on any GPU."""
    C = x.shape[-1]
    partials, count = _partials("gradient_sums", dy, x, mean, rest, inv_std)
    dgamma, dbeta = empty((C,), x.dtype, x), empty((C,), x.dtype, x)
    CUDA.launch("parameter_gradients", (x.dtype,), *over_channels(C, count), partials, dgamma, dbeta, count, C)
    return dgamma, dbeta


def batch_norm2d_input_gradient(
    dy: NHWC, x: NHWC, mean: Array, rest: Array, inv_std: Array, gamma: Array, dgamma: Array, dbeta: Array
) -> NHWC:
    """See `minidl.ops.batch_norm2d`."""
    return _each_row("input_gradient", dy, x, mean, rest, inv_std, gamma, dgamma, dbeta)


def _partials(name: str, *arrays: Array) -> tuple[Array, int]:
    """Two sums for each share of the rows and each channel, and how many shares there are."""
    x = arrays[0]
    C = x.shape[-1]
    rows, V = x.size // C, vector(C, *arrays)
    grid, block = shares(rows, C, V)
    partials = empty((grid[0], 2, C), np.float64, x)
    CUDA.launch(name, (x.dtype, V), grid, block, *arrays, partials, rows, C)
    return partials, grid[0]


def _each_row(name: str, *arrays: Array) -> NHWC:
    x = arrays[0]
    C, y = x.shape[-1], empty_like(x)
    rows, V = x.size // C, vector(C, *arrays, y)
    CUDA.launch(name, (x.dtype, V), *shares(rows, C, V), *arrays, y, rows, C)
    return y
