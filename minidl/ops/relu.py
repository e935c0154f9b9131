"""The rectified linear unit and its gradient."""

from __future__ import annotations

from minidl.accelerate import accelerated
from minidl.arrays import Array, array_module


@accelerated
def relu(x: Array) -> Array:
    """y = max(x, 0); a NaN stays NaN."""
    y: Array = array_module(x).maximum(x, x.dtype.type(0))
    return y


@accelerated
def relu_gradient(dy: Array, y: Array) -> Array:
    """dx = dy where y > 0, else 0."""
    dx: Array = array_module(dy).where(y > 0, dy, dy.dtype.type(0))
    return dx
