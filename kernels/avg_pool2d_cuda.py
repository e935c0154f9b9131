"""Average pooling on the GPU: kernels/avg_pool2d.cu."""

from __future__ import annotations

from minidl.arrays import NHWC
from minidl.kernels.cuda import Source, empty, geometry, rows, tiles, vector
from minidl.window import Window

CUDA = Source("avg_pool2d")


def avg_pool2d(x: NHWC, window: Window, count_include_pad: bool = True) -> NHWC:
    """See `minidl.ops.avg_pool2d`."""
    N, H, W, C = x.shape
    shape = (N, *window.output_size(H, W), C)
    y = empty(shape, x.dtype, x)
    V = vector(C, x, y)
    counted = _counted_padding(window, count_include_pad)
    CUDA.launch("avg_pool2d", (x.dtype, V), *rows(shape, V), x, y, C, geometry(window, H, W), *counted)
    return y


def avg_pool2d_gradient(
    dy: NHWC, x_shape: tuple[int, int, int, int], window: Window, count_include_pad: bool = True
) -> NHWC:
    """See `minidl.ops.avg_pool2d`."""
    _, H, W, C = x_shape
    dx = empty(x_shape, dy.dtype, dy)
    V = vector(C, dy, dx)
    counted = _counted_padding(window, count_include_pad)
    CUDA.launch("avg_pool2d_gradient", (dy.dtype, V), *tiles(x_shape, V), dy, dx, C, geometry(window, H, W), *counted)
    return dx


def _counted_padding(window: Window, count_include_pad: bool) -> tuple[int, ...]:
    return (*window.padding[0], *window.padding[1]) if count_include_pad else (0, 0, 0, 0)
