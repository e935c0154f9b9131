"""Maximum over the whole image."""

from __future__ import annotations

from minidl.arrays import NHWC, Array, array_module, is_array
from minidl.layer import Layer, Shape, expect_rank, is_map
from minidl.random import Key


class GlobalMaxPool2d(Layer):
    """y[n, 0, 0, c] = max_{h,w} x[n, h, w, c]

    Backward: dy goes to the winner, which is the first in row-major order among equals; a NaN wins over all.

    Shapes: x (N, H, W, C) → y (N, 1, 1, C).
    Cost: one comparison an element.
    Kept for backward: the position h·W + w of each winner.
    Raises: ShapeError for a wrong rank.
    """

    def forward(
        self, x: NHWC, *, train: bool = False, key: Key | None = None
    ) -> tuple[NHWC, tuple[Array, Shape] | None]:
        """See `Layer.forward`."""
        N, H, W, C = self.check(x).shape
        winners = x.reshape(N, H * W, C).argmax(axis=1)
        y = array_module(x).take_along_axis(x.reshape(N, H * W, C), winners[:, None], axis=1)
        return y[:, None], (winners, x.shape) if train else None

    def backward(self, dy: NHWC, cache: tuple[Array, Shape], *, input_gradient: bool = True) -> NHWC | None:
        """See `Layer.backward`."""
        winners, (N, H, W, C) = self.kept(cache, is_array, is_map)
        self.check_gradient(dy, (N, 1, 1, C), winners)
        if not input_gradient:
            return None
        xp = array_module(dy)
        won = xp.arange(H * W)[None, :, None] == winners[:, None]
        dx: NHWC = xp.where(won, dy.reshape(N, 1, C), dy.dtype.type(0)).reshape(N, H, W, C)
        return dx.astype(dy.dtype, copy=False)  # CuPy's where gives float32 for bfloat16

    def output_shape(self, shape: Shape) -> Shape:
        """See `Layer.output_shape`."""
        return 1, 1, expect_rank(shape, "H, W, C")[2]

    def decisions(self, cache: tuple[Array, Shape]) -> list[Array]:
        """See `Layer.decisions`: the winners."""
        return [cache[0]]
