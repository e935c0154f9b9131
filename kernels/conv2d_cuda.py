"""Convolution on the GPU: which algorithm computes it.

`im2col` (kernels/im2col_cuda.py) computes every convolution, by matrix products of cuBLAS.
"""

from __future__ import annotations

from typing import Any

from minidl.arrays import NHWC, Array
from minidl.errors import ArgumentError
from minidl.kernels import im2col_cuda
from minidl.kernels.geometry import Problem
from minidl.kernels.im2col_cuda import col2im, im2col
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
    y: NHWC = _chosen(algorithm).conv2d(x, weight, bias, problem, relu)
    return y


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
    dx: NHWC = _chosen(algorithm).conv2d_input_gradient(dy, weight, problem)
    return dx


def conv2d_weight_gradient(x: NHWC, dy: NHWC, window: Window, groups: int = 1, *, algorithm: str = "auto") -> Array:
    """See `minidl.ops.conv2d.conv2d_weight_gradient`."""
    problem = Problem(x.shape, (*window.kernel, x.shape[3] // groups, dy.shape[3]), window, groups)
    dweight: Array = _chosen(algorithm).conv2d_weight_gradient(x, dy, problem)
    return dweight


def _chosen(algorithm: str) -> Any:
    """The module that computes it.

    Raises: ArgumentError for an algorithm that has no kernel for the GPU.
    """
    if algorithm in ("auto", "im2col"):
        return im2col_cuda
    raise ArgumentError(f"conv2d={algorithm!r}: there is no such kernel for the GPU; take 'auto' or 'im2col'")
