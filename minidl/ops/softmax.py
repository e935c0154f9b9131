"""Softmax and its logarithm over the last axis, and their gradients."""

from __future__ import annotations

from minidl.accelerate import accelerated
from minidl.arrays import Array, array_module


@accelerated
def softmax(x: Array) -> Array:
    """y_i = exp(x_i − m) / Σ_j exp(x_j − m),    m = max_j x_j

    Subtracting the maximum changes nothing in exact arithmetic and keeps exp from overflowing. x (…, C) → y (…, C).
    """
    xp = array_module(x)
    exponential = xp.exp(x - x.max(axis=-1, keepdims=True))
    y: Array = exponential / exponential.sum(axis=-1, keepdims=True)
    return y


@accelerated
def softmax_gradient(dy: Array, y: Array) -> Array:
    """dx_i = y_i · (dy_i − Σ_j dy_j·y_j),  from ∂y_j/∂x_i = y_j·(δ_ij − y_i)."""
    dx: Array = y * (dy - (dy * y).sum(axis=-1, keepdims=True))
    return dx


@accelerated
def log_softmax(x: Array) -> Array:
    """y_i = x_i − m − log Σ_j exp(x_j − m),    m = max_j x_j.    x (…, C) → y (…, C)."""
    xp = array_module(x)
    y: Array = x - x.max(axis=-1, keepdims=True)
    y -= xp.log(xp.exp(y).sum(axis=-1, keepdims=True))
    return y


@accelerated
def log_softmax_gradient(dy: Array, y: Array) -> Array:
    """dx_i = dy_i − exp(y_i) · Σ_j dy_j,  from ∂y_j/∂x_i = δ_ij − exp(y_i)."""
    dx: Array = dy - array_module(y).exp(y) * dy.sum(axis=-1, keepdims=True)
    return dx
