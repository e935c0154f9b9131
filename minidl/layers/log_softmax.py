"""Logarithm of softmax."""

from __future__ import annotations

from minidl.arrays import Array, is_array
from minidl.layer import Layer
from minidl.ops.softmax import log_softmax, log_softmax_gradient
from minidl.random import Key


class LogSoftmax(Layer):
    """y_i = x_i − log Σ_j e^(x_j) over the last axis,    dx_i = dy_i − e^(y_i) · Σ_j dy_j

    Shapes: x (N, …, C) → y of the same shape.
    Kept for backward: y.
    """

    def forward(self, x: Array, *, train: bool = False, key: Key | None = None) -> tuple[Array, Array | None]:
        """See `Layer.forward`."""
        y = log_softmax(self.check(x))
        return y, y if train else None

    def backward(self, dy: Array, cache: Array, *, input_gradient: bool = True) -> Array | None:
        """See `Layer.backward`."""
        y = self.kept(cache, is_array)
        self.check_gradient(dy, y.shape, y)
        return log_softmax_gradient(dy, y) if input_gradient else None
