"""A net as it is when nothing is left to learn: fewer passes over memory, and weights that are prepared once."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import Any

import numpy as np

from minidl.arrays import NHWC, Array, array_module, is_array
from minidl.combine import Container, Sequential
from minidl.errors import expect_a
from minidl.layer import Buffer, Layer, Parameter
from minidl.layers import BatchNorm2d, Conv2d, Dropout, Linear, ReLU
from minidl.ops.conv2d import conv2d
from minidl.ops.linear import linear
from minidl.ops.relu import relu_gradient
from minidl.random import Key


def inference(net: Layer) -> Layer:
    """A read-only copy of a net that computes what its inference pass does, faster.

    In a Sequential, Dropout is left out, BatchNorm2d behind a convolution becomes part of its weights, ReLU behind a
    convolution or a fully connected layer is computed along with it. Layers keep their names. Nobody can write into
    the weights, so that kernels prepare them once: Winograd's algorithm transforms filters.

    With train=True the copy computes the inference pass too, and `backward` gives its gradients.

    The copy has weights of its own: what becomes of the net afterwards does not show in it.

    Raises: ArgumentError for what is no layer.
    """
    expect_a(Layer, "inference", "net", net)
    copies: dict[int, Any] = {}  # by the id of the original: what is shared stays shared

    def of(part: Any) -> Any:
        if id(part) not in copies:
            copies[id(part)] = _holder(part) if isinstance(part, Parameter | Buffer) else _layer(part, of)
        return copies[id(part)]

    result: Layer = of(net)
    return result


def _holder(holder: Parameter | Buffer) -> Parameter | Buffer:
    return type(holder)(_read_only(holder.value.copy()))


def _read_only(value: Array) -> Array:
    if isinstance(value, np.ndarray):  # CuPy's arrays have no such flag
        value.flags.writeable = False
    return value


def _layer(layer: Layer, of: Any) -> Layer:
    """The copy of a layer, whose parts are copied by `of`."""
    fixed = copy(layer)
    for name, value in vars(layer).items():
        if isinstance(value, Parameter | Buffer | Layer):
            setattr(fixed, name, of(value))
    if isinstance(fixed, Container):
        fixed.layers = {name: of(child) for name, child in fixed.layers.items()}
    if isinstance(fixed, BatchNorm2d):
        return Affine.of(fixed)
    if type(fixed) is Sequential:
        fixed.layers = dict(_joined(fixed.layers))
    return fixed


def _joined(layers: dict[str, Layer]) -> Iterator[tuple[str, Layer]]:
    """The layers of a Sequential, neighbours joined."""
    waiting: tuple[str, Layer] | None = None
    for name, layer in layers.items():
        if isinstance(layer, Dropout):
            continue
        joined = _pair(waiting[1], layer) if waiting else None
        if waiting and not joined:
            yield waiting
        waiting = (waiting[0], joined) if waiting and joined else (name, layer)
    if waiting:
        yield waiting


def _pair(first: Layer, second: Layer) -> Layer | None:
    """One layer that does what two do, where there is one."""
    if type(second) is ReLU and type(first) in (Conv2d, Linear):
        return _as(Conv2dReLU if type(first) is Conv2d else LinearReLU, first)
    if isinstance(second, Affine) and type(first) is Conv2d:
        scaled = copy(first)
        bias = first.bias.value if first.bias else 0
        scaled.weight = Parameter(_read_only(first.weight.value * second.scale.value))
        scaled.bias = Parameter(_read_only(bias * second.scale.value + second.shift.value))
        return scaled
    return None


def _as(kind: type[Layer], layer: Layer) -> Layer:
    result = kind.__new__(kind)
    vars(result).update(vars(layer))
    return result


class Conv2dReLU(Conv2d):
    """y = max(conv2d(x), 0). Kept for backward: x and y."""

    def forward(self, x: NHWC, *, train: bool = False, key: Key | None = None) -> tuple[NHWC, Any]:
        """See `Layer.forward`."""
        self.check(x)
        bias = self.bias.value if self.bias else None
        y = conv2d(x, self.weight.value, bias, self.window, self.groups, relu=True)
        return y, (x, y) if train else None

    def backward(self, dy: NHWC, cache: Any, *, input_gradient: bool = True) -> NHWC | None:
        """See `Layer.backward`."""
        x, y = self.kept(cache, is_array, is_array)
        return super().backward(relu_gradient(dy, y), x, input_gradient=input_gradient)

    def decisions(self, cache: Any) -> list[Array]:
        """See `Layer.decisions`: which units are on."""
        return [cache[1] > 0]


class LinearReLU(Linear):
    """y = max(linear(x), 0). Kept for backward: x and y."""

    def forward(self, x: Array, *, train: bool = False, key: Key | None = None) -> tuple[Array, Any]:
        """See `Layer.forward`."""
        self.check(x)
        y = linear(x, self.weight.value, self.bias.value if self.bias else None, relu=True)
        return y, (x, y) if train else None

    def backward(self, dy: Array, cache: Any, *, input_gradient: bool = True) -> Array | None:
        """See `Layer.backward`."""
        x, y = self.kept(cache, is_array, is_array)
        return super().backward(relu_gradient(dy, y), x, input_gradient=input_gradient)

    def decisions(self, cache: Any) -> list[Array]:
        """See `Layer.decisions`: which units are on."""
        return [cache[1] > 0]


class Affine(Layer):
    """y = scale · x + shift for each channel: what is left of BatchNorm2d when its statistics are fixed.

        scale = γ / √(running_var + ε),    shift = β − scale · running_mean

    Shapes: x (N, …, C) → y of the same shape; scale and shift (C,).
    """

    def __init__(self, scale: Array, shift: Array) -> None:
        self.scale, self.shift = Buffer(scale), Buffer(shift)

    @classmethod
    def of(cls, norm: BatchNorm2d) -> Affine:
        """What a layer of batch normalisation does in its inference pass."""
        var = norm.running_var.value
        scale = norm.gamma.value / array_module(var).sqrt(var + var.dtype.type(norm.eps))
        return cls(_read_only(scale), _read_only(norm.beta.value - scale * norm.running_mean.value))

    def forward(self, x: Array, *, train: bool = False, key: Key | None = None) -> tuple[Array, Array | None]:
        """See `Layer.forward`."""
        y = self.check(x) * self.scale.value + self.shift.value
        return y, y if train else None

    def backward(self, dy: Array, cache: Array, *, input_gradient: bool = True) -> Array | None:
        """See `Layer.backward`: dx = scale · dy."""
        y = self.kept(cache, is_array)
        self.check_gradient(dy, y.shape, y)
        return dy * self.scale.value if input_gradient else None
