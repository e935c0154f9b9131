"""Logistic sigmoid."""

from __future__ import annotations

from minidl.arrays import Array, array_module, is_array
from minidl.layer import Layer
from minidl.random import Key


class Sigmoid(Layer):
    """y = 1 / (1 + e^(−x)),    dx = dy · y · (1 − y)

    Computed from e^(−|x|), which cannot overflow: y = 1/(1 + e^(−x)) for x ≥ 0 and e^x/(1 + e^x) for x < 0.

    Shapes: any x (N, …) → y of the same shape.
    Kept for backward: y.
    """

    def forward(self, x: Array, *, train: bool = False, key: Key | None = None) -> tuple[Array, Array | None]:
        """See `Layer.forward`."""
        xp = array_module(self.check(x))
        small = xp.exp(-xp.abs(x))
        y = xp.exp(xp.minimum(x, 0)) / (1 + small)
        return y, y if train else None

    def backward(self, dy: Array, cache: Array, *, input_gradient: bool = True) -> Array | None:
        """See `Layer.backward`."""
        y = self.kept(cache, is_array)
        self.check_gradient(dy, y.shape, y)
        return dy * y * (1 - y) if input_gradient else None
