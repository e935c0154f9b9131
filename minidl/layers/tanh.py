"""Hyperbolic tangent."""

from __future__ import annotations

from minidl.arrays import Array, array_module, is_array
from minidl.layer import Layer
from minidl.random import Key


class Tanh(Layer):
    """y = tanh(x),    dx = dy · (1 − y²)

    Shapes: any x (N, …) → y of the same shape.
    Kept for backward: y.
    Source: LeCun, Bottou, Bengio, Haffner 1998; what AlexNet's ReLU is measured against in its Figure 1.
    """

    def forward(self, x: Array, *, train: bool = False, key: Key | None = None) -> tuple[Array, Array | None]:
        """See `Layer.forward`."""
        y = array_module(self.check(x)).tanh(x)
        return y, y if train else None

    def backward(self, dy: Array, cache: Array, *, input_gradient: bool = True) -> Array | None:
        """See `Layer.backward`."""
        y = self.kept(cache, is_array)
        self.check_gradient(dy, y.shape, y)
        return dy * (1 - y * y) if input_gradient else None
