"""Softmax on the GPU: kernels/softmax.cu."""

from __future__ import annotations

import math

from minidl.arrays import Array
from minidl.kernels.cuda import Source, empty_like, rows_of, vector

CUDA = Source("softmax")


def softmax(x: Array) -> Array:
    """See `minidl.ops.softmax`."""
    return _by_rows("softmax", x)


def softmax_gradient(dy: Array, y: Array) -> Array:
    """See `minidl.ops.softmax`."""
    return _by_rows("softmax_gradient", dy, y)


def log_softmax(x: Array) -> Array:
    """See `minidl.ops.softmax`."""
    return _by_rows("log_softmax", x)


def log_softmax_gradient(dy: Array, y: Array) -> Array:
    """See `minidl.ops.softmax`."""
    return _by_rows("log_softmax_gradient", dy, y)


def _by_rows(kernel: str, *arrays: Array) -> Array:
    *leading, C = arrays[0].shape
    N, result = math.prod(leading), empty_like(arrays[0])
    V = vector(C, *arrays, result)
    CUDA.launch(kernel, (result.dtype, V), *rows_of(C, N, V), *arrays, result, N, C)
    return result
