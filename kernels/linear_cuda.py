"""The fully connected layer on the GPU: cuBLAS's matrix product, and one pass for bias and ReLU."""

from __future__ import annotations

from minidl.arrays import Array
from minidl.kernels.cuda import matmul, products_in
from minidl.kernels.epilogue_cuda import finish


def linear(x: Array, weight: Array, bias: Array | None, relu: bool = False, *, tf32: bool = False) -> Array:
    """See `minidl.ops.linear.linear`."""
    with products_in(tf32):
        y = matmul(x, weight)
    if bias is not None or relu:
        N, O = y.shape
        finish(y, bias, y.reshape(N, 1, 1, O), slice(0, O), relu)
    return y


def linear_input_gradient(dy: Array, weight: Array, *, tf32: bool = False) -> Array:
    """See `minidl.ops.linear.linear_input_gradient`."""
    with products_in(tf32):
        return matmul(dy, weight.T)


def linear_weight_gradient(x: Array, dy: Array, *, tf32: bool = False) -> Array:
    """See `minidl.ops.linear.linear_weight_gradient`."""
    with products_in(tf32):
        return matmul(x.T, dy)
