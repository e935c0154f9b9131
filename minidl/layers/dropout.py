"""Dropout."""

from __future__ import annotations

from minidl.arrays import Array
from minidl.errors import ArgumentError, expect_number, told
from minidl.layer import Layer, Shape, is_shape
from minidl.ops.dropout import dropout
from minidl.random import Key


class Dropout(Layer):
    """In training y = x · mask / (1 − p), where mask is 0 with probability p, else 1; at inference y = x.

    Backward multiplies dy by the same mask. Dividing by 1 − p in training ("inverted" dropout) keeps the mean, and is
    equivalent to the paper's multiplication by 1 − p at test time.

    Shapes: any x (N, …) → y of the same shape. At inference, and with p = 0, y is x itself.
    Kept for backward: the key, and the shape of x; the mask is drawn again from the counter.
    Raises: ArgumentError for p outside [0, 1), and in training without a key.
    Source: Krizhevsky, Sutskever, Hinton 2012, §4.2; Srivastava et al. 2014.

    >>> import numpy as np
    >>> y, cache = Dropout(0.5).forward(np.ones((1, 8), np.float32), train=True, key=Key(1))
    >>> y
    array([[2., 2., 2., 2., 2., 2., 0., 2.]], dtype=float32)
    """

    def __init__(self, p: float = 0.5) -> None:
        self.p = expect_number("Dropout", "p", p, within="[0, 1)")

    def forward(
        self, x: Array, *, train: bool = False, key: Key | None = None
    ) -> tuple[Array, tuple[Key, Shape] | None]:
        """See `Layer.forward`."""
        self.check(x)
        if not train:
            return x, None
        if not isinstance(key, Key):
            raise ArgumentError(
                f"{self}: training draws a mask; pass a key: forward(x, train=True, key=Key(seed)); got {told(key)}"
            )
        return (dropout(x, self.p, key) if self.p else x), (key, x.shape)

    def backward(self, dy: Array, cache: tuple[Key, Shape], *, input_gradient: bool = True) -> Array | None:
        """See `Layer.backward`."""
        key, shape = self.kept(cache, is_key, is_shape)
        self.check_gradient(dy, shape)
        if not input_gradient:
            return None
        return dropout(dy, self.p, key) if self.p else dy

    def __repr__(self) -> str:
        return f"Dropout({self.p})"


def is_key(value: object) -> bool:
    """Whether it is a `Key`."""
    return isinstance(value, Key)
