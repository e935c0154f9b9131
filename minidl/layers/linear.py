"""Fully connected layer."""

from __future__ import annotations

from minidl.arrays import Array
from minidl.errors import ShapeError, expect_flag, expect_positive
from minidl.initializers import bare, constant, he
from minidl.layer import Layer, Parameter, Shape, expect_shape
from minidl.ops.channel_sum import channel_sum
from minidl.ops.linear import linear, linear_input_gradient, linear_weight_gradient
from minidl.random import Key


class Linear(Layer):
    """y = x · weight + bias

    Shapes: x (N, in_features) → y (N, out_features); weight (in_features, out_features), bias (out_features,).
    Cost: 2·N·in_features·out_features FLOP forward, twice that backward.
    Kept for backward: x.
    Raises: ArgumentError for sizes < 1; ShapeError for a wrong rank or wrong features.

    >>> Linear(9216, 4096)
    Linear(9216→4096)
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        in_features, out_features = expect_positive("Linear", in_features=in_features, out_features=out_features)
        bias = expect_flag("Linear", "bias", bias)
        self.in_features, self.out_features = in_features, out_features
        shape = (in_features, out_features)
        self.weight = Parameter.drawn(shape, bare(he, shape))
        self.bias = Parameter.drawn((out_features,), bare(constant(0), (out_features,))) if bias else None

    def forward(self, x: Array, *, train: bool = False, key: Key | None = None) -> tuple[Array, Array | None]:
        """See `Layer.forward`."""
        self.check(x)
        y = linear(x, self.weight.value, self.bias.value if self.bias else None)
        return y, x if train else None

    def backward(self, dy: Array, cache: Array, *, input_gradient: bool = True) -> Array | None:
        """See `Layer.backward`."""
        # y = x·weight + bias  ⇒  dweight = xᵀ·dy    dbias = Σ dy    dx = dy·weightᵀ
        x = self.kept_input(cache)
        self.check_gradient(dy, (len(x), self.out_features), x)
        self.weight.accumulate(linear_weight_gradient(x, dy))
        if self.bias:
            self.bias.accumulate(channel_sum(dy))
        return linear_input_gradient(dy, self.weight.value) if input_gradient else None

    def output_shape(self, shape: Shape) -> Shape:
        """See `Layer.output_shape`."""
        shape = expect_shape(shape)
        if len(shape) != 1:
            raise ShapeError(
                f"expected the axes (N, {self.in_features}); put a Flatten() before it; got {len(shape) + 1} axes"
            )
        features = shape[0]
        if features != self.in_features:
            raise ShapeError(f"expected {self.in_features} features, got {features}")
        return (self.out_features,)

    def macs(self, shape: Shape) -> int:
        """See `Layer.macs`."""
        return self.weight.size

    def __repr__(self) -> str:
        return f"Linear({self.in_features}→{self.out_features}{'' if self.bias else ', bias=False'})"
