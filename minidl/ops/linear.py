"""The fully connected layer: one matrix product forward, two backward."""

from __future__ import annotations

from minidl.accelerate import accelerated
from minidl.arrays import Array, array_module


@accelerated
def linear(x: Array, weight: Array, bias: Array | None, relu: bool = False) -> Array:
    """y = x · weight + bias, or max(y, 0) where relu is set.

    x (N, I), weight (I, O), bias (O,) or None → y (N, O).
    """
    y: Array = x @ weight
    if bias is not None:
        y += bias
    return array_module(y).maximum(y, 0, out=y) if relu else y


@accelerated
def linear_input_gradient(dy: Array, weight: Array) -> Array:
    """dx = dy · weightᵀ.    dy (N, O), weight (I, O) → dx (N, I)."""
    dx: Array = dy @ weight.T
    return dx


@accelerated
def linear_weight_gradient(x: Array, dy: Array) -> Array:
    """dweight = xᵀ · dy.    x (N, I), dy (N, O) → dweight (I, O)."""
    dweight: Array = x.T @ dy
    return dweight
