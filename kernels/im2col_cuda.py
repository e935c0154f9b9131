"""Convolution on the GPU by im2col: kernels/im2col.cu and cuBLAS's matrix product.

The columns of some images are laid out, multiplied and forgotten while the GPU's cache still holds them. No variable
keeps them, so that the next ones get the same memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from minidl.arrays import NHWC, Array, array_module
from minidl.kernels.cuda import Source, empty, geometry, matmul, rows, tiles, vector
from minidl.kernels.epilogue_cuda import accumulate, finish
from minidl.kernels.geometry import Problem
from minidl.window import Window

CUDA = Source("im2col")
CHUNK = 25 << 20  # bytes of columns: half of an H200's second-level cache
POINT = Window.of(1)


def im2col(x: NHWC, window: Window) -> Array:
    """See `minidl.ops.conv2d.im2col`."""
    N, H, W, C = x.shape
    return _laid_out(x, window, slice(0, C)).reshape(N, *window.output_size(H, W), *window.kernel, C)


def col2im(cols: Array, x_shape: tuple[int, int, int, int], window: Window) -> NHWC:
    """See `minidl.ops.conv2d.col2im`."""
    x = empty(x_shape, cols.dtype, cols)
    _add_up(cols, x, window, slice(0, x_shape[3]))
    return x


def conv2d(x: NHWC, weight: Array, bias: Array | None, problem: Problem, relu: bool = False) -> NHWC:
    """See `minidl.ops.conv2d.conv2d`."""
    y = empty(problem.y_shape, x.dtype, x)
    in_place = problem.groups == 1
    for inputs, outputs in _groups(problem):
        filters = _columns(weight, POINT, outputs)
        product = _matrix(y) if in_place else empty((math.prod(y.shape[:3]), filters.shape[1]), y.dtype, y)
        for images, pixels in _chunks(problem, x.itemsize):
            matmul(_columns(x[images], problem.window, inputs), filters, product[pixels])
        if bias is not None or relu or not in_place:
            finish(product, bias, y, outputs, relu)
    return y


def conv2d_input_gradient(dy: NHWC, weight: Array, problem: Problem) -> NHWC:
    """See `minidl.ops.conv2d.conv2d_input_gradient`."""
    dx = empty(problem.x_shape, dy.dtype, dy)
    for inputs, outputs in _groups(problem):
        turned = _columns(weight, POINT, outputs).T
        for images, _ in _chunks(problem, dy.itemsize):
            dpixels = _columns(dy[images], POINT, outputs)
            if _is_matrix(dx, problem.window, inputs):
                matmul(dpixels, turned, _matrix(dx[images]))
            else:
                _add_up(matmul(dpixels, turned), dx[images], problem.window, inputs)
    return dx


def conv2d_weight_gradient(x: NHWC, dy: NHWC, problem: Problem) -> Array:
    """See `minidl.ops.conv2d.conv2d_weight_gradient`."""
    dweight: Array = array_module(x).zeros(problem.weight_shape, np.promote_types(x.dtype, np.float32))
    for inputs, outputs in _groups(problem):
        for images, _ in _chunks(problem, x.itemsize):
            dpixels = _columns(dy[images], POINT, outputs)
            accumulate(matmul(_columns(x[images], problem.window, inputs).T, dpixels), dweight, outputs)
    return dweight.astype(x.dtype, copy=False)


def _columns(x: NHWC, window: Window, channels: slice) -> Array:
    """What a window sees of some channels, as a matrix (N·OH·OW, KH·KW·C): x itself where it is that."""
    return _matrix(x) if _is_matrix(x, window, channels) else _laid_out(x, window, channels)


def _is_matrix(x: NHWC, window: Window, channels: slice) -> bool:
    """Whether the window sees one whole pixel after the other."""
    return window == POINT and channels == slice(0, x.shape[3])


def _matrix(x: NHWC) -> Array:
    return x.reshape(-1, x.shape[3])


def _laid_out(x: NHWC, window: Window, channels: slice) -> Array:
    N, H, W, pixel = x.shape
    (OH, OW), (KH, KW) = window.output_size(H, W), window.kernel
    first, C = channels.start, channels.stop - channels.start
    cols = empty((N * OH * OW, KH * KW * C), x.dtype, x)
    V = vector(C, x, cols)
    grid = rows((N, OH, OW, KH * KW * C), V)
    CUDA.launch("im2col", (x.dtype, V), *grid, x, cols, C, first, pixel, geometry(window, H, W))
    return cols


def _add_up(cols: Array, x: NHWC, window: Window, channels: slice) -> None:
    """x[…, channels] = col2im(cols)."""
    N, H, W, pixel = x.shape
    first, C = channels.start, channels.stop - channels.start
    V = vector(C, x, cols)
    grid = tiles((N, H, W, C), V)
    CUDA.launch("col2im", (x.dtype, V), *grid, cols, x, C, first, pixel, geometry(window, H, W))


def _groups(problem: Problem) -> Iterator[tuple[slice, slice]]:
    """The input and output channels of each group, which begin at multiples of their number: so V divides all."""
    _, _, C, O = problem.weight_shape
    O //= problem.groups
    for g in range(problem.groups):
        yield slice(g * C, (g + 1) * C), slice(g * O, (g + 1) * O)


def _chunks(problem: Problem, itemsize: int) -> Iterator[tuple[slice, slice]]:
    """The images of each chunk, and its output pixels."""
    (N, OH, OW, _), (KH, KW, C, _) = problem.y_shape, problem.weight_shape
    step = max(1, N if problem.window == POINT else CHUNK // (OH * OW * KH * KW * C * itemsize))
    for n in range(0, N, step):
        yield slice(n, n + step), slice(n * OH * OW, (n + step) * OH * OW)
