"""Average over the whole image."""

from __future__ import annotations

import numpy as np

from minidl.arrays import NHWC, array_module
from minidl.layer import Layer, Shape, expect_rank, is_map
from minidl.random import Key


class GlobalAvgPool2d(Layer):
    """y[n, 0, 0, c] = 1/(H·W) · Σ_{h,w} x[n, h, w, c],    dx[n, h, w, c] = dy[n, 0, 0, c] / (H·W)

    Shapes: x (N, H, W, C) → y (N, 1, 1, C).
    Cost: one addition an element.
    Kept for backward: the shape of x.
    Raises: ShapeError for a wrong rank.
    Source: Lin, Chen, Yan 2013, arXiv 1312.4400, §3.2.
    """

    def forward(self, x: NHWC, *, train: bool = False, key: Key | None = None) -> tuple[NHWC, Shape | None]:
        """See `Layer.forward`."""
        self.check(x)
        y = x.mean(axis=(1, 2), keepdims=True, dtype=np.float64)  # a float32 sum of 10⁶ numbers would lose two digits
        return y.astype(x.dtype, copy=False), x.shape if train else None

    def backward(self, dy: NHWC, cache: Shape, *, input_gradient: bool = True) -> NHWC | None:
        """See `Layer.backward`."""
        N, H, W, C = self.kept(cache, is_map)
        self.check_gradient(dy, (N, 1, 1, C))
        if not input_gradient:
            return None
        dx: NHWC = array_module(dy).broadcast_to(dy / dy.dtype.type(H * W), cache).copy()
        return dx

    def output_shape(self, shape: Shape) -> Shape:
        """See `Layer.output_shape`."""
        return 1, 1, expect_rank(shape, "H, W, C")[2]
