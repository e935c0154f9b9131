"""Softmax."""

from __future__ import annotations

from minidl.arrays import Array, is_array
from minidl.layer import Layer
from minidl.ops.softmax import softmax, softmax_gradient
from minidl.random import Key


class Softmax(Layer):
    """y_i = e^(x_i) / Σ_j e^(x_j) over the last axis,    dx_i = y_i · (dy_i − Σ_j dy_j·y_j)

    For training use the loss `SoftmaxCrossEntropy` on the logits: it is stabler and cheaper than this layer and a
    logarithm.

    Shapes: x (N, …, C) → y of the same shape; the rows sum to 1.
    Kept for backward: y.
    """

    def forward(self, x: Array, *, train: bool = False, key: Key | None = None) -> tuple[Array, Array | None]:
        """See `Layer.forward`."""
        y = softmax(self.check(x))
        return y, y if train else None

    def backward(self, dy: Array, cache: Array, *, input_gradient: bool = True) -> Array | None:
        """See `Layer.backward`."""
        y = self.kept(cache, is_array)
        self.check_gradient(dy, y.shape, y)
        return softmax_gradient(dy, y) if input_gradient else None
