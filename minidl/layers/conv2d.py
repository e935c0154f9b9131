"""Convolution."""

from __future__ import annotations

from minidl.arrays import NHWC
from minidl.errors import ArgumentError, ShapeError, expect_flag, expect_positive
from minidl.initializers import bare, constant, he
from minidl.layer import Layer, Parameter, Shape, expect_rank
from minidl.ops.channel_sum import channel_sum
from minidl.ops.conv2d import conv2d, conv2d_input_gradient, conv2d_weight_gradient
from minidl.random import Key
from minidl.window import Padding, Rounding, Size, Window


class Conv2d(Layer):
    """y[n, oh, ow, o] = bias[o] + Σ_{i,j,c} weight[i, j, c, o] · x[n, oh·SH + i·DH − top, ow·SW + j·DW − left, c]

    Shapes: x (N, H, W, in_channels) → y (N, OH, OW, out_channels); weight (KH, KW, in_channels/groups, out_channels),
        bias (out_channels,). With groups, each group of outputs sees its own group of inputs only.
    Cost: 2·N·OH·OW·KH·KW·(in_channels/groups)·out_channels FLOP forward, twice that backward.
    Kept for backward: x. The columns, KH·KW/(SH·SW) times as large, are laid out again.
    Raises: ArgumentError for sizes < 1, and for groups that do not divide the channels; ShapeError for a wrong rank,
        wrong channels, or a window larger than the padded image.
    Source: Krizhevsky, Sutskever, Hinton 2012, §3.5; groups: §3.2, the two GPUs.

    padding: an integer, (height, width), or ((top, bottom), (left, right)); with stride 1 also "same", for an output of
        the height and width of x.
    rounding: "floor", or "ceil" to keep a last window that hangs over the end.

    >>> Conv2d(96, 256, kernel_size=5, padding=2, groups=2)
    Conv2d(96→256, 5×5, padding=2, groups=2)
    """

    window: Window

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        rounding: Rounding = "floor",
    ) -> None:
        in_channels, out_channels, groups = expect_positive(
            "Conv2d", in_channels=in_channels, out_channels=out_channels, groups=groups
        )
        bias = expect_flag("Conv2d", "bias", bias)
        if in_channels % groups or out_channels % groups:
            raise ArgumentError(
                f"Conv2d: groups: expected a divisor of in_channels={in_channels} and out_channels={out_channels}, "
                f"got {groups}"
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.window = Window.of(kernel_size, stride, padding, dilation, rounding)
        shape = (*self.window.kernel, in_channels // groups, out_channels)
        self.weight = Parameter.drawn(shape, bare(he, shape))
        self.bias = Parameter.drawn((out_channels,), bare(constant(0), (out_channels,))) if bias else None

    def forward(self, x: NHWC, *, train: bool = False, key: Key | None = None) -> tuple[NHWC, NHWC | None]:
        """See `Layer.forward`."""
        self.check(x)
        bias = self.bias.value if self.bias else None
        y = conv2d(x, self.weight.value, bias, self.window, self.groups)
        return y, x if train else None

    def backward(self, dy: NHWC, cache: NHWC, *, input_gradient: bool = True) -> NHWC | None:
        """See `Layer.backward`."""
        # y = cols·weight + bias  ⇒  dweight = colsᵀ·dy    dbias = Σ dy    dcols = dy·weightᵀ
        x = self.kept_input(cache)
        self.check_gradient(dy, (len(x), *self.output_shape(x.shape[1:])), x)
        self.weight.accumulate(conv2d_weight_gradient(x, dy, self.window, self.groups))
        if self.bias:
            self.bias.accumulate(channel_sum(dy))
        if not input_gradient:
            return None
        return conv2d_input_gradient(dy, self.weight.value, x.shape, self.window, self.groups)

    def output_shape(self, shape: Shape) -> Shape:
        """See `Layer.output_shape`."""
        H, W, C = expect_rank(shape, "H, W, C")
        if self.in_channels != C:
            raise ShapeError(f"expected {self.in_channels} channels, got {C}")
        return (*self.window.output_size(H, W), self.out_channels)

    def macs(self, shape: Shape) -> int:
        """See `Layer.macs`."""
        OH, OW, _ = self.output_shape(shape)
        return OH * OW * self.weight.size

    def columns(self, shape: Shape) -> int:
        """See `Layer.columns`."""
        OH, OW, _ = self.output_shape(shape)
        KH, KW = self.window.kernel
        return OH * OW * KH * KW * self.in_channels

    def __repr__(self) -> str:
        groups = f", groups={self.groups}" if self.groups > 1 else ""
        bias = "" if self.bias else ", bias=False"
        return f"Conv2d({self.in_channels}→{self.out_channels}, {self.window}{groups}{bias})"
