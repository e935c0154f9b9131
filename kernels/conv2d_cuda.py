"""Convolution on the GPU: which algorithm computes it.

`im2col` (kernels/im2col_cuda.py) computes every convolution, by matrix products of cuBLAS. `implicit` (kernels/
implicit_gemm.py) does the same on tensor cores without columns in memory, in half precision and, where
`settings(tf32=True)` allows it, for float32.

"auto" takes the latter where it fits and channels come in groups of 16 bytes, or do once the strides are channels too,
as otherwise it reads them one by one.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from minidl.arrays import NHWC, Array
from minidl.errors import ArgumentError
from minidl.kernels import im2col_cuda, implicit_gemm
from minidl.kernels.cuda import products_in
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
    tf32: bool = False,
) -> NHWC:
    """See `minidl.ops.conv2d.conv2d`."""
    problem = Problem(x.shape, weight.shape, window, groups)
    with products_in(tf32):
        y: NHWC = _chosen(algorithm, x.dtype, problem, tf32).conv2d(x, weight, bias, problem, relu)
    return y


def conv2d_input_gradient(
    dy: NHWC,
    weight: Array,
    x_shape: tuple[int, int, int, int],
    window: Window,
    groups: int = 1,
    *,
    algorithm: str = "auto",
    tf32: bool = False,
) -> NHWC:
    """See `minidl.ops.conv2d.conv2d_input_gradient`."""
    problem = Problem(x_shape, weight.shape, window, groups)
    with products_in(tf32):
        dx: NHWC = _chosen(algorithm, dy.dtype, problem, tf32).conv2d_input_gradient(dy, weight, problem)
    return dx


def conv2d_weight_gradient(
    x: NHWC, dy: NHWC, window: Window, groups: int = 1, *, algorithm: str = "auto", tf32: bool = False
) -> Array:
    """See `minidl.ops.conv2d.conv2d_weight_gradient`."""
    problem = Problem(x.shape, (*window.kernel, x.shape[3] // groups, dy.shape[3]), window, groups)
    with products_in(tf32):
        dweight: Array = _chosen(algorithm, x.dtype, problem, tf32).conv2d_weight_gradient(x, dy, problem)
    return dweight


@cache
def _chosen(algorithm: str, dtype: np.dtype[Any], problem: Problem, tf32: bool) -> Any:
    """The module that computes it.

    Raises: ArgumentError for an algorithm that has no kernel for the GPU, or does not fit.
    """
    if algorithm == "winograd":
        raise ArgumentError("conv2d='winograd': there is no such kernel for the GPU; take 'auto' or 'im2col'")
    obstacle = implicit_gemm.obstacle(dtype, problem, tf32)
    if algorithm == "implicit" and obstacle:
        raise ArgumentError(f"conv2d='implicit': {obstacle}; take 'auto' or 'im2col'")
    fits = not obstacle and (
        implicit_gemm.in_vectors(problem, dtype.itemsize) or implicit_gemm.regroups(problem, dtype.itemsize)
    )
    return implicit_gemm if algorithm == "implicit" or (algorithm == "auto" and fits) else im2col_cuda
