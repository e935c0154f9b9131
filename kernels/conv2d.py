"""Convolution on the CPU: which algorithm computes it.

`im2col` (kernels/im2col.py) computes every convolution as its op does, in the order of its definition. `winograd`
(kernels/winograd.py) multiplies less where filters are small, and rounds more; with a stride it regroups the pixels
first (kernels/space_to_depth.py), so that AlexNet's conv1 is a convolution by 3×3 filters.

"auto" takes what costs less, by a rule fitted to measurements: a function of shapes and dtype alone, so that a training
that is resumed computes the same. In float64, where digits matter more than time, it takes im2col.
"""

from __future__ import annotations

from minidl.arrays import NHWC, Array
from minidl.kernels import im2col as by_columns
from minidl.kernels import winograd
from minidl.kernels.frozen import is_frozen
from minidl.kernels.geometry import Problem
from minidl.kernels.im2col import col2im, im2col
from minidl.window import Window

__all__ = ["col2im", "conv2d", "conv2d_input_gradient", "conv2d_weight_gradient", "im2col"]


def conv2d(
    x: NHWC,
    weight: Array,
    bias: Array | None,
    window: Window,
    groups: int = 1,
    relu: bool = False,
    *,
    algorithm: str = "auto",
) -> NHWC:
    """See `minidl.ops.conv2d.conv2d`."""
    problem = Problem(x.shape, weight.shape, window, groups)
    m = winograd.tile(algorithm, problem, x.dtype, is_frozen(weight))
    if m:
        return winograd.conv2d(x, weight, bias, problem, m, relu)
    return by_columns.conv2d(x, weight, bias, problem, relu)


def conv2d_input_gradient(
    dy: NHWC,
    weight: Array,
    x_shape: tuple[int, int, int, int],
    window: Window,
    groups: int = 1,
    *,
    algorithm: str = "auto",
) -> NHWC:
    """See `minidl.ops.conv2d.conv2d_input_gradient`."""
    problem = Problem(x_shape, weight.shape, window, groups)
    m = winograd.tile(algorithm, problem, dy.dtype)
    if m:
        return winograd.conv2d_input_gradient(dy, weight, problem, m)
    return by_columns.conv2d_input_gradient(dy, weight, problem)


def conv2d_weight_gradient(x: NHWC, dy: NHWC, window: Window, groups: int = 1, *, algorithm: str = "auto") -> Array:
    """See `minidl.ops.conv2d.conv2d_weight_gradient`. Each thread sums a share, so the last bits depend on their
    number.
    """
    problem = Problem(x.shape, (*window.kernel, x.shape[3] // groups, dy.shape[3]), window, groups)
    m = winograd.tile(algorithm, problem, x.dtype)
    if m:
        return winograd.conv2d_weight_gradient(x, dy, problem, m)
    return by_columns.conv2d_weight_gradient(x, dy, problem)
