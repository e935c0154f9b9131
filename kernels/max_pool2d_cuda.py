"""Max pooling on the GPU: kernels/max_pool2d.cu."""

from __future__ import annotations

import numpy as np

from minidl.arrays import NHWC, Array
from minidl.kernels.cuda import Source, empty, geometry, rows, tiles, vector
from minidl.window import Window

CUDA = Source("max_pool2d")


def max_pool2d(x: NHWC, window: Window) -> tuple[NHWC, Array]:
    """See `minidl.ops.max_pool2d`."""
    N, H, W, C = x.shape
    KH, KW = window.kernel
    shape = (N, *window.output_size(H, W), C)
    y, winners = empty(shape, x.dtype, x), empty(shape, np.min_scalar_type(KH * KW - 1), x)
    V = vector(C, x, y, winners)
    template = x.dtype, winners.dtype, V
    CUDA.launch("max_pool2d", template, *rows(shape, V), x, y, winners, C, geometry(window, H, W))
    return y, winners


def max_pool2d_gradient(dy: NHWC, winners: Array, x_shape: tuple[int, int, int, int], window: Window) -> NHWC:
    """See `minidl.ops.max_pool2d`."""
    _, H, W, C = x_shape
    dx = empty(x_shape, dy.dtype, dy)
    V = vector(C, dy, winners, dx)
    template = dy.dtype, winners.dtype, V
    CUDA.launch("max_pool2d_gradient", template, *tiles(x_shape, V), dy, winners, dx, C, geometry(window, H, W))
    return dx
