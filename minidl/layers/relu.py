"""Rectified linear unit."""

from __future__ import annotations

from minidl.arrays import Array, is_array
from minidl.layer import Layer
from minidl.ops.relu import relu, relu_gradient
from minidl.random import Key


class ReLU(Layer):
    """y = max(x, 0),    dx = dy where y > 0, else 0

    Shapes: any x (N, …) → y of the same shape.
    Cost: one comparison an element.
    Kept for backward: y, which the next layer keeps anyway. The slope at 0 is taken as 0; a NaN passes through.
    Source: Krizhevsky, Sutskever, Hinton 2012, §3.1; Nair and Hinton 2010.
    """

    def forward(self, x: Array, *, train: bool = False, key: Key | None = None) -> tuple[Array, Array | None]:
        """See `Layer.forward`."""
        y = relu(self.check(x))
        return y, y if train else None

    def backward(self, dy: Array, cache: Array, *, input_gradient: bool = True) -> Array | None:
        """See `Layer.backward`."""
        y = self.kept(cache, is_array)
        self.check_gradient(dy, y.shape, y)
        return relu_gradient(dy, y) if input_gradient else None

    def decisions(self, cache: Array) -> list[Array]:
        """See `Layer.decisions`: which units are on."""
        return [cache > 0]
