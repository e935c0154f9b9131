"""Max pooling."""

from __future__ import annotations

from minidl.arrays import NHWC, Array, is_array
from minidl.layer import Layer, Shape, is_map
from minidl.layers.pooling import pooled_shape, pooling_window
from minidl.ops.max_pool2d import max_pool2d, max_pool2d_gradient
from minidl.random import Key
from minidl.window import Padding, Rounding, Size, Window


class MaxPool2d(Layer):
    """y[n, oh, ow, c] = max_{i,j} x[n, oh·SH + i·DH − top, ow·SW + j·DW − left, c]

    Backward: dy goes to the tap that won. Among equals the first in row-major order wins, a NaN wins over all, and
    padding never wins. Where windows overlap (stride < kernel_size, §3.4 of the paper) an element may win several.

    Shapes: x (N, H, W, C) → y (N, OH, OW, C).
    Cost: KH·KW comparisons an output.
    Kept for backward: the winning tap of each output as one byte (two if the window has more than 256 taps).
    Raises: ShapeError for a wrong rank, or where a window would see padding only.
    Source: Krizhevsky, Sutskever, Hinton 2012, §3.4.

    stride: that of the window, `kernel_size` unless given.

    >>> MaxPool2d(kernel_size=3, stride=2)
    MaxPool2d(3×3, stride=2)
    """

    window: Window

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        rounding: Rounding = "floor",
    ) -> None:
        self.window = pooling_window(kernel_size, stride, padding, dilation, rounding)

    def forward(
        self, x: NHWC, *, train: bool = False, key: Key | None = None
    ) -> tuple[NHWC, tuple[Array, Shape] | None]:
        """See `Layer.forward`."""
        self.check(x)
        y, winners = max_pool2d(x, self.window)
        return y, (winners, x.shape) if train else None

    def backward(
        self, dy: NHWC, cache: tuple[Array, tuple[int, int, int, int]], *, input_gradient: bool = True
    ) -> NHWC | None:
        """See `Layer.backward`."""
        winners, x_shape = self.kept(cache, is_array, is_map)
        self.check_gradient(dy, winners.shape, winners)
        return max_pool2d_gradient(dy, winners, x_shape, self.window) if input_gradient else None

    def output_shape(self, shape: Shape) -> Shape:
        """See `Layer.output_shape`."""
        return pooled_shape(self.window, shape)

    def decisions(self, cache: tuple[Array, Shape]) -> list[Array]:
        """See `Layer.decisions`: the winners."""
        return [cache[0]]

    def __repr__(self) -> str:
        return f"MaxPool2d({self.window})"
