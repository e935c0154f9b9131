"""The rectified linear unit's gradient on the GPU: kernels/relu.cu."""

from __future__ import annotations

from minidl.arrays import Array
from minidl.kernels.cuda import THREADS, Source, blocks, empty_like, vector

CUDA = Source("relu")


def relu_gradient(dy: Array, y: Array) -> Array:
    """See `minidl.ops.relu`."""
    dx = empty_like(dy)
    V = vector(dy.size, dy, y, dx)
    CUDA.launch("relu_gradient", (dy.dtype, V), blocks(dy.size // V), THREADS, dy, y, dx, dy.size // V)
    return dx
