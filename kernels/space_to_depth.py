"""A convolution with a stride as one without: the pixels of each s×s square become channels of one pixel.

    x'[n, a, b, (i, j, c)]     = x[n, a·s + i − top, b·s + j − left, c],                0 outside of x
    w'[a, b, (i, j, c), o]     = weight[a·s + i, b·s + j, c, o],                        0 beyond its K×K pixels
    y[n, oh, ow, o]            = Σ_{a,b,k} w'[a, b, k, o] · x'[n, oh + a, ow + b, k]

AlexNet's conv1, 11×11 pixels with stride 4 over 3 channels, becomes 3×3 pixels over 48 channels. Squares are what
im2col lays out for a window of s×s pixels and stride s, so the functions are given that of the device at hand.
"""

from __future__ import annotations

from collections.abc import Callable

from minidl.arrays import NHWC, Array, array_module
from minidl.kernels.geometry import Problem
from minidl.window import Window


def applies(problem: Problem) -> bool:
    """Whether the convolution has a stride to regroup by, and nothing that stands in the way.

    >>> applies(Problem((1, 227, 227, 3), (11, 11, 3, 96), Window.of(11, stride=4), 1))
    True
    """
    (KH, KW), (SH, SW) = problem.window.kernel, problem.window.stride
    square = KH == KW and SH == SW and problem.window.dilation == (1, 1)
    return square and problem.groups == 1 and 1 < SH <= KH


def regrouped(problem: Problem) -> Problem:
    """The convolution of stride 1 that computes the same.

    >>> conv1 = Problem((1, 227, 227, 3), (11, 11, 3, 96), Window.of(11, stride=4), 1)
    >>> print(regrouped(conv1).x_shape, regrouped(conv1).weight_shape)
    (1, 57, 57, 48) (3, 3, 48, 96)
    """
    (N, _, _, C), (_, _, _, O) = problem.x_shape, problem.weight_shape
    _, OH, OW, _ = problem.y_shape
    r, s = problem.taps, problem.window.stride[0]
    return Problem((N, OH + r - 1, OW + r - 1, s * s * C), (r, r, s * s * C, O), Window.of(r), 1)


def squares(x: NHWC, problem: Problem, im2col: Callable[[NHWC, Window], Array]) -> NHWC:
    """x' of x."""
    return im2col(x, _squares(problem)).reshape(regrouped(problem).x_shape)


def squares_adjoint(
    dx: NHWC, problem: Problem, col2im: Callable[[Array, tuple[int, int, int, int], Window], NHWC]
) -> NHWC:
    """The gradient of x from that of x'."""
    window = _squares(problem)
    s = window.kernel[0]
    N, H, W, C = problem.x_shape
    return col2im(dx.reshape(*dx.shape[:3], s, s, C), (N, H, W, C), window)


def _squares(problem: Problem) -> Window:
    """The window that sees each square once; its padding at the end is what the last squares lack."""
    s = problem.window.stride[0]
    _, *sizes, _ = regrouped(problem).x_shape
    before = [begin for begin, _ in problem.window.padding]
    after = [max(0, n * s - size - b) for n, size, b in zip(sizes, problem.x_shape[1:3], before, strict=True)]
    return Window.of(s, stride=s, padding=list(zip(before, after, strict=True)))


def filters(weight: Array, problem: Problem) -> Array:
    """w' of weight."""
    K, s, r = problem.window.kernel[0], problem.window.stride[0], problem.taps
    _, _, C, O = weight.shape
    xp = array_module(weight)
    padded = xp.zeros((r * s, r * s, C, O), weight.dtype)
    padded[:K, :K] = weight
    regrouped: Array = xp.empty((r, r, s * s * C, O), weight.dtype)  # no view of another, so that it can be frozen
    regrouped.reshape(r, r, s, s, C, O)[...] = padded.reshape(r, s, r, s, C, O).swapaxes(1, 2)
    return regrouped


def filters_adjoint(dweight: Array, problem: Problem) -> Array:
    """The gradient of weight from that of w'."""
    s, r = problem.window.stride[0], problem.taps
    K, _, C, O = problem.weight_shape
    padded = dweight.reshape(r, r, s, s, C, O).swapaxes(1, 2).reshape(r * s, r * s, C, O)
    dense: Array = array_module(dweight).ascontiguousarray(padded[:K, :K])
    return dense
