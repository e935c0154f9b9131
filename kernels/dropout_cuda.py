"""Dropout on the GPU: kernels/dropout.cu."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from minidl.arrays import Array
from minidl.kernels.cuda import THREADS, Source, empty_like, vector

if TYPE_CHECKING:
    from minidl.random import Key

CUDA = Source("dropout")


def dropout(x: Array, p: float, key: Key) -> Array:
    """See `minidl.ops.dropout`: bit for bit the same mask."""
    N, size, y = len(x), math.prod(x.shape[1:]), empty_like(x)
    V = vector(size, x, y)
    drop, scale = int(p * 2**32), float(x.dtype.type(1 / (1 - p)))
    grid = N, min(65535, -(-size // (max(4, V) * THREADS)))
    CUDA.launch("dropout", (x.dtype, V), grid, THREADS, x, y, drop, scale, *key.words, key.sample, size)
    return y
