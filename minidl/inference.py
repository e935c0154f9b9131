"""The same net in fewer passes over memory: `fuse` and `lowered` for training, `inference` for all that follows."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

import numpy as np

from minidl.arrays import NHWC, Array, DTypeLike, array_module, float_dtype, is_array
from minidl.combine import Container, Sequential
from minidl.errors import expect_a
from minidl.layer import Buffer, Layer, Parameter
from minidl.layers import BatchNorm2d, Conv2d, Dropout, Linear, ReLU
from minidl.ops.conv2d import conv2d
from minidl.ops.linear import linear
from minidl.ops.relu import relu_gradient
from minidl.random import Key

__all__ = ["fuse", "inference", "lowered"]

Holder = Parameter | Buffer


def fuse(net: Layer) -> Layer:
    """The same net with fewer passes over memory: in a Sequential, ReLU is computed along with the convolution or
    the fully connected layer before it.

    It shares the parameters and buffers of the net, and their names: what is trained here is trained there.

    Raises: ArgumentError for what is no layer.
    """
    expect_a(Layer, "fuse", "net", net)
    return _rebuilt(net, lambda holder: holder, lambda layer: layer)


def lowered(net: Layer, dtype: DTypeLike) -> Layer:
    """What `fuse` makes of a net, with parameters of its own of another dtype. Buffers are shared.

    Raises: ArgumentError for what is no layer; DTypeError for another dtype than those that the engine computes in.
    """
    expect_a(Layer, "lowered", "net", net)
    dtype = float_dtype(dtype)

    def held(holder: Holder) -> Holder:
        return holder if isinstance(holder, Buffer) else Parameter(holder.value.astype(dtype))

    return _rebuilt(net, held, lambda layer: layer)


def inference(net: Layer) -> Layer:
    """A read-only copy of a net that computes what its inference pass does, faster.

    Beyond what `fuse` does, Dropout is left out, and BatchNorm2d behind a convolution becomes part of its weights.
    Nobody can write into the weights, so that kernels prepare them once: Winograd's algorithm transforms filters.

    With train=True the copy computes the inference pass too, and `backward` gives its gradients.

    The copy has weights of its own: what becomes of the net afterwards does not show in it.

    Raises: ArgumentError for what is no layer.
    """
    expect_a(Layer, "inference", "net", net)
    return _rebuilt(net, _frozen, _fixed)


def _frozen(holder: Holder) -> Holder:
    return type(holder)(_read_only(holder.value.copy()))


def _read_only(value: Array) -> Array:
    if isinstance(value, np.ndarray):  # CuPy's arrays have no such flag
        value.flags.writeable = False
    return value


def _fixed(layer: Layer) -> Layer | None:
    if isinstance(layer, BatchNorm2d):
        return Affine.of(layer)
    return None if isinstance(layer, Dropout) else layer


def _rebuilt(net: Layer, held: Callable[[Any], Holder], kept: Callable[[Layer], Layer | None]) -> Layer:
    """The net with other parameters, buffers and layers in it. What is shared stays shared.

    kept: what becomes of a layer; None leaves it out of a Sequential.
    """
    made: dict[int, Any] = {}  # by the id of the original

    def of(part: Any) -> Any:
        if id(part) not in made:
            made[id(part)] = held(part) if isinstance(part, Holder) else rebuilt(part)
        return made[id(part)]

    def rebuilt(layer: Layer) -> Layer | None:
        layer = copy(layer)
        for name, value in vars(layer).items():
            if isinstance(value, Holder | Layer):
                setattr(layer, name, of(value) or Sequential())
        if isinstance(layer, Container):
            layers = {name: of(child) for name, child in layer.layers.items()}
            if type(layer) is Sequential:
                layer.layers = dict(_joined(layers))
            else:
                layer.layers = {name: child or Sequential() for name, child in layers.items()}
        return kept(layer)

    return of(net) or Sequential()


def _joined(layers: dict[str, Layer | None]) -> list[tuple[str, Layer]]:
    """The layers of a Sequential, neighbours joined where that can be, under the name of the first."""
    found: list[tuple[str, Layer]] = []
    for name, layer in layers.items():
        together = _pair(found[-1][1], layer) if found and layer else None
        if together:
            found[-1] = found[-1][0], together
        elif layer:
            found.append((name, layer))
    return found


def _pair(first: Layer, second: Layer) -> Layer | None:
    """One layer that does what two do, where there is one."""
    if type(second) is ReLU and type(first) in FUSED:
        fused = FUSED[type(first)]
        result = fused.__new__(fused)
        vars(result).update(vars(first))
        return result
    if isinstance(second, Affine) and type(first) is Conv2d:
        scaled = copy(first)
        bias = first.bias.value if first.bias else 0
        scaled.weight = Parameter(_read_only(first.weight.value * second.scale.value))
        scaled.bias = Parameter(_read_only(bias * second.scale.value + second.shift.value))
        return scaled
    return None


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


FUSED: dict[type[Layer], type[Layer]] = {Conv2d: Conv2dReLU, Linear: LinearReLU}


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
