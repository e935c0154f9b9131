"""Flatten."""

from __future__ import annotations

import math

from minidl.arrays import Array
from minidl.layer import Layer, Shape, expect_shape, is_shape
from minidl.random import Key


class Flatten(Layer):
    """y[n, (h·W + w)·C + c] = x[n, h, w, c]: each sample as one row.

    Shapes: x (N, …) → y (N, product of the rest), a view of x where its memory allows.
    Kept for backward: the shape of x.
    """

    def forward(self, x: Array, *, train: bool = False, key: Key | None = None) -> tuple[Array, Shape | None]:
        """See `Layer.forward`."""
        self.check(x)
        return x.reshape(x.shape[0], -1), x.shape if train else None

    def backward(self, dy: Array, cache: Shape, *, input_gradient: bool = True) -> Array | None:
        """See `Layer.backward`."""
        N, *shape = self.kept(cache, is_shape)
        self.check_gradient(dy, (N, math.prod(shape)))
        return dy.reshape(N, *shape) if input_gradient else None

    def output_shape(self, shape: Shape) -> Shape:
        """See `Layer.output_shape`."""
        return (math.prod(expect_shape(shape)),)
