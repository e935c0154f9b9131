"""Average pooling."""

from __future__ import annotations

from minidl.arrays import NHWC
from minidl.errors import expect_flag
from minidl.layer import Layer, Shape, is_map
from minidl.layers.pooling import pooled_shape, pooling_window
from minidl.ops.avg_pool2d import avg_pool2d, avg_pool2d_gradient
from minidl.random import Key
from minidl.window import Padding, Rounding, Size, Window


class AvgPool2d(Layer):
    """y[n, oh, ow, c] = 1/count · Σ_{i,j} x[n, oh·SH + i·DH − top, ow·SW + j·DW − left, c]

    Backward: every element that a window saw gets dy/count of it.

    Shapes: x (N, H, W, C) → y (N, OH, OW, C).
    Cost: KH·KW additions an output.
    Kept for backward: the shape of x.
    Raises: ShapeError for a wrong rank, or where a window would see padding only.
    Source: LeCun, Bottou, Bengio, Haffner 1998, §II.B (sub-sampling).

    stride: that of the window, `kernel_size` unless given.
    count_include_pad: whether padding counts as elements of value 0, or not at all.

    >>> AvgPool2d(kernel_size=2)
    AvgPool2d(2×2, stride=2)
    """

    window: Window

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        rounding: Rounding = "floor",
        count_include_pad: bool = True,
    ) -> None:
        self.window = pooling_window(kernel_size, stride, padding, dilation, rounding)
        self.count_include_pad = expect_flag("AvgPool2d", "count_include_pad", count_include_pad)

    def forward(self, x: NHWC, *, train: bool = False, key: Key | None = None) -> tuple[NHWC, Shape | None]:
        """See `Layer.forward`."""
        self.check(x)
        return avg_pool2d(x, self.window, self.count_include_pad), x.shape if train else None

    def backward(self, dy: NHWC, cache: tuple[int, int, int, int], *, input_gradient: bool = True) -> NHWC | None:
        """See `Layer.backward`."""
        N, *shape = x_shape = self.kept(cache, is_map)
        self.check_gradient(dy, (N, *self.output_shape(tuple(shape))))
        return avg_pool2d_gradient(dy, x_shape, self.window, self.count_include_pad) if input_gradient else None

    def output_shape(self, shape: Shape) -> Shape:
        """See `Layer.output_shape`."""
        return pooled_shape(self.window, shape)

    def __repr__(self) -> str:
        count = "" if self.count_include_pad else ", count_include_pad=False"
        return f"AvgPool2d({self.window}{count})"
