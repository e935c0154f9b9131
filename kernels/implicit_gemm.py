"""Convolution on tensor cores: kernels/implicit_gemm.cu, whose matrix product finds im2col's columns where they lie.

Halves are multiplied as they are, floats rounded to 11 bits (TF32); sums are floats. Threads copy 16 bytes at a time
where channels come in such groups; a strided convolution where they do not, as AlexNet's conv1 over three, is regrouped
into one where they do (kernels/space_to_depth.py). What comes out is a function of the arguments alone: the weight
gradient's partial sums, too, are made and added in an order that their shapes give.
"""

from __future__ import annotations

from functools import cache
from math import gcd

import numpy as np

from minidl.arrays import NHWC, Array, DTypeLike
from minidl.kernels.cuda import VECTOR, Source, blocks, empty, geometry, vector
from minidl.kernels.geometry import Problem
from minidl.kernels.im2col_cuda import col2im, im2col
from minidl.kernels.space_to_depth import applies, filters, filters_adjoint, regrouped, squares, squares_adjoint
from minidl.window import Window

CUDA = Source("implicit_gemm")
FULL = 264  # blocks that fill a large GPU: two on each of its 132 processors
BLOCK = 128  # threads, as in kernels/implicit_gemm.cu
STEP = 64  # bytes along K of a tile
LEAST_STEPS = 8  # of a block that sums a share of all positions
LARGEST = (1 << 31) - 256  # of a number that a kernel counts to, and a tile beyond
MOST_CLASSES = 65535  # of groups × pixels that differ in their place between two strides


def obstacle(dtype: DTypeLike, problem: Problem, tf32: bool = False) -> str | None:
    """What the kernels ask for and the convolution lacks, or None.

    tf32: whether float32 may be rounded to 11 bits.

    >>> obstacle("float32", Problem((1, 8, 8, 3), (3, 3, 3, 8), Window.of(3), 1))
    'expected float16 or bfloat16, or float32 where TF32 is allowed, got float32'
    >>> obstacle("float16", Problem((1, 8, 8, 3), (3, 3, 3, 8), Window.of(3), 1))
    """
    name = np.dtype(dtype).name
    if name not in ("float16", "bfloat16") and not (name == "float32" and tf32):
        return f"expected float16 or bfloat16, or float32 where TF32 is allowed, got {name}"
    (N, H, W, _), (KH, KW, channels, O), (_, OH, OW, _) = problem.x_shape, problem.weight_shape, problem.y_shape
    if max(N * H * W, N * OH * OW, KH * KW * max(channels, O)) > LARGEST:
        return f"expected at most {LARGEST} pixels and weights of a filter"
    if problem.groups * _classes(problem.window, H, W) > MOST_CLASSES:
        return f"expected at most {MOST_CLASSES} for groups × strides"
    return None


def in_vectors(problem: Problem, itemsize: int) -> bool:
    """Whether channels come in groups of 16 bytes."""
    (_, _, channels, O), groups = problem.weight_shape, problem.groups
    return channels * itemsize % VECTOR == 0 and O // groups * itemsize % VECTOR == 0


@cache
def regroups(problem: Problem, itemsize: int) -> bool:
    """Whether channels come in groups of 16 bytes only where strides become channels.

    >>> regroups(Problem((1, 227, 227, 3), (11, 11, 3, 96), Window.of(11, stride=4), 1), itemsize=2)
    True
    """
    return applies(problem) and not in_vectors(problem, itemsize) and in_vectors(regrouped(problem), itemsize)


def conv2d(x: NHWC, weight: Array, bias: Array | None, problem: Problem, relu: bool = False) -> NHWC:
    """See `minidl.ops.conv2d.conv2d`."""
    if regroups(problem, x.itemsize):
        return conv2d(squares(x, problem, im2col), filters(weight, problem), bias, regrouped(problem), relu)
    (N, H, W, C), window, groups = problem.x_shape, problem.window, problem.groups
    O = weight.shape[3]
    y = empty(problem.y_shape, x.dtype, x)
    V = vector(gcd(C // groups, O // groups), x, weight, y)
    large, tiles = _tiles(y.size // O, O // groups, groups)
    numbers = N, C, O, relu, geometry(window, H, W)
    _launch("implicit_conv2d", x.dtype, V, large, (tiles, groups), x, weight, bias, y, *numbers)
    return y


def conv2d_input_gradient(dy: NHWC, weight: Array, problem: Problem) -> NHWC:
    """See `minidl.ops.conv2d.conv2d_input_gradient`."""
    if regroups(problem, dy.itemsize):
        dx = conv2d_input_gradient(dy, filters(weight, problem), regrouped(problem))
        return squares_adjoint(dx, problem, col2im)
    (N, H, W, C), window, groups = problem.x_shape, problem.window, problem.groups
    O = weight.shape[3]
    dx = empty(problem.x_shape, dy.dtype, dy)
    V = vector(gcd(C // groups, O // groups), dy, weight, dx)
    (SH, SW), classes = window.stride, _classes(window, H, W)
    large, tiles = _tiles(N * -(-H // SH) * -(-W // SW), C // groups, groups * classes)
    numbers = N, C, O, groups, geometry(window, H, W)
    _launch("implicit_input_gradient", dy.dtype, V, large, (tiles, groups * classes), dy, weight, dx, *numbers)
    return dx


def conv2d_weight_gradient(x: NHWC, dy: NHWC, problem: Problem) -> Array:
    """See `minidl.ops.conv2d.conv2d_weight_gradient`. Where there are few weights, several blocks share the positions
    among them.
    """
    if regroups(problem, x.itemsize):
        dweight = conv2d_weight_gradient(squares(x, problem, im2col), dy, regrouped(problem))
        return filters_adjoint(dweight, problem)
    (N, H, W, C), window, groups = problem.x_shape, problem.window, problem.groups
    O = dy.shape[3]
    dweight = empty(problem.weight_shape, x.dtype, x)
    V = vector(gcd(C // groups, O // groups), x, dy)
    large, tiles = _tiles(dweight.size // O, O // groups, groups)
    depth = STEP // x.itemsize
    steps = -(-(dy.size // O) // depth)
    wanted = max(1, min(-(-FULL // (tiles * groups)), steps // LEAST_STEPS))
    share = max(1, -(-steps // wanted))
    splits = max(1, -(-steps // share))  # each but the last of whole steps, and none of none
    partial = empty((splits, *dweight.shape), np.float32, x)
    numbers = N, C, O, groups, share * depth, geometry(window, H, W)
    _launch("implicit_weight_gradient", x.dtype, V, large, (tiles, groups * splits), x, dy, partial, *numbers)
    CUDA.launch("sum_of_splits", (x.dtype,), blocks(dweight.size), 256, partial, dweight, dweight.size, splits)
    return dweight


def _classes(window: Window, H: int, W: int) -> int:
    """How many places a pixel can have between two strides."""
    SH, SW = window.stride
    return min(SH, H) * min(SW, W)


def _tiles(rows: int, columns: int, matrices: int) -> tuple[bool, int]:
    """Whether so many matrices are cut into tiles of 128×128 numbers, and not 64×64, and how many each gives.

    >>> _tiles(128 * 13 * 13, 384, 1), _tiles(13 * 13, 384, 1)
    ((True, 507), (False, 18))
    """
    small, large = (-(-rows // edge) * -(-columns // edge) for edge in (64, 128))
    return (True, large) if columns > 64 and large * matrices >= FULL else (False, small)


def _launch(name: str, dtype: DTypeLike, V: int, large: bool, grid: tuple[int, int], *args: object) -> None:
    edge = 128 if large else 64
    shared = edge * 16 + 3 * 2 * edge * (STEP + 16)  # the lines' places; three pairs of tiles with padded lines
    CUDA.launch(name, (dtype, V, large), grid, BLOCK, *args, shared=shared)
