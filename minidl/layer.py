"""What every layer is: a forward pass, its hand-written backward pass, and the arrays that it trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, Self, TypeVar, cast

import numpy as np

from minidl.arrays import (
    FLOATS,
    Array,
    DTypeLike,
    array_module,
    device_of,
    float_dtype,
    has_float_dtype,
    is_array,
    is_half,
    require_array,
    require_device,
    to_device,
    to_host,
)
from minidl.devices import parse_device
from minidl.errors import (
    ArgumentError,
    CheckpointError,
    DeviceError,
    DTypeError,
    ShapeError,
    told,
)
from minidl.random import Key
from minidl.window import Window

Shape = tuple[int, ...]
T = TypeVar("T", "Parameter", "Buffer")


class Parameter:
    """A trainable array `value` and the gradient `grad` = ∂loss/∂value, None until a backward pass arrives.

    A parameter made with `drawn` draws its first value when somebody first asks for it, so that a model can be
    described without filling its memory.

    Nothing derived from the value is kept: it may be assigned, and written into.

    Raises: ArgumentError, DTypeError, ShapeError for a value or gradient that is no plain array of floats, or of
        another shape.
    """

    def __init__(self, value: Array) -> None:
        self._value: Array | None = _contiguous(_floats("value", value))
        self._draw: Callable[[], Array] | None = None
        self.shape: Shape = value.shape
        self.grad: Array | None = None

    @classmethod
    def drawn(cls, shape: Shape, draw: Callable[[], Array]) -> Parameter:
        """A parameter of the shape whose first value is `draw()`, at first use."""
        if not callable(draw):
            raise ArgumentError(f"draw: expected a function that gives the first value, got {told(draw)}")
        parameter = cls.__new__(cls)
        parameter._value, parameter._draw, parameter.shape, parameter.grad = None, draw, expect_shape(shape), None
        return parameter

    @property
    def value(self) -> Array:
        """The array itself, not a copy; C-contiguous."""
        if self._value is None:
            assert self._draw is not None
            self.value = self._draw()
            assert self._value is not None
        return self._value

    @value.setter
    def value(self, value: Array) -> None:
        if _floats("value", value).shape != self.shape:
            raise ShapeError(f"a parameter of shape {self.shape} cannot take a value of shape {value.shape}")
        self._value = _contiguous(value)

    @property
    def is_drawn(self) -> bool:
        """Whether the value exists already."""
        return self._value is not None

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return int(np.prod(self.shape))

    def accumulate(self, gradient: Array) -> None:
        """grad += gradient. The first gradient is adopted, not copied: pass a fresh array."""
        if _floats("gradient", gradient).shape != self.shape:
            raise ShapeError(f"a parameter of shape {self.shape} got a gradient of shape {gradient.shape}")
        if self._value is not None and gradient.dtype != self._value.dtype:
            raise DTypeError(f"a parameter of {self._value.dtype.name} got a gradient of {gradient.dtype.name}")
        if self._value is not None:
            require_device("gradient", gradient, self._value)
        if self.grad is None:
            self.grad = gradient
        else:
            self.grad += gradient


def _floats(name: str, value: Array) -> Array:
    require_array(name, value)
    if not has_float_dtype(value):
        raise DTypeError(f"{name}: expected an array of float32 or float64, got {told(value)}")
    return value


def _contiguous(value: Array) -> Array:
    # Optimiser steps write into values in place, which a kernel does to C-contiguous arrays only.
    contiguous: Array = array_module(value).asarray(value, order="C")
    return contiguous


class Buffer:
    """An array that belongs to a layer's state but is not trained, such as BatchNorm2d's running mean.

    Raises: ArgumentError, DTypeError for a value that is no plain array of floats.
    """

    def __init__(self, value: Array) -> None:
        self.value = _floats("value", value)


class Layer:
    """A differentiable function of one array, with parameters.

    A layer of one's own needs `forward` and `backward`; parameters, buffers and inner layers are found among its
    attributes.

        forward(x)       ->  y, cache     y = f(x; θ)
        backward(dy, …)  ->  dx           dx = (∂y/∂x)ᵀ dy,  and for each parameter  θ.grad += (∂y/∂θ)ᵀ dy

    The cache is a value, not hidden state: it holds what backward needs, the caller keeps it as long as needed, and
    one layer may stand at two places of a net.

    window: what part of its input an output pixel sees, for `minidl.summary`. None stands for the pixel itself where
        the layer keeps the size of the map, and for the whole map where it changes it.
    """

    window: Window | None = None

    def forward(self, x: Array, *, train: bool = False, key: Key | None = None) -> tuple[Array, Any]:
        """The output, and what `backward` needs of it.

        train: behave as in training (dropout drops, batch norm uses the batch) and keep a cache; without it the
            cache is None and nothing is kept.
        key: where random layers draw from; needed by Dropout when train is set.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def backward(self, dy: Array, cache: Any, *, input_gradient: bool = True) -> Array | None:
        """Add to the parameters' gradients; return dx, or None where `input_gradient` is False.

        dy: gradient of the loss with respect to the output; never written into.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define backward")

    def __call__(self, x: Array) -> Array:
        """The output of the inference pass."""
        return expect_pair(self, self.forward(x))[0]

    # --- what the layer consists of ---------------------------------------------------------------------------

    def children(self) -> dict[str, Layer]:
        """The layers inside this one, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Layer)}

    def parameters(self) -> dict[str, Parameter]:
        """All parameters by dotted path, such as "conv1.weight"; a shared one once, under its first name."""
        return self._collect(Parameter)

    def buffers(self) -> dict[str, Buffer]:
        """All buffers by dotted path."""
        return self._collect(Buffer)

    def _collect(self, kind: type[T], prefix: str = "") -> dict[str, T]:
        found = {prefix + name: value for name, value in vars(self).items() if isinstance(value, kind)}
        for name, child in self.children().items():
            found |= child._collect(kind, f"{prefix}{name}.")
        unique: dict[int, tuple[str, T]] = {}
        for path, value in found.items():
            unique.setdefault(id(value), (path, value))
        return dict(unique.values())

    def _holders(self) -> dict[str, Parameter | Buffer]:
        return {**self.parameters(), **self.buffers()}

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters().values():
            parameter.grad = None

    def to(self, device: str | None = None, dtype: DTypeLike = None) -> Self:
        """Move all parameters and buffers to a device and a dtype, in place; returns self.

        Do it before an optimiser is made: the optimiser's state does not move along. Buffers stay float32 beside
        half-precision parameters: a running mean that follows in small steps would stand still.

        Raises: ArgumentError, DeviceError for a device that cannot be; DTypeError for another dtype.
        """
        device = None if device is None else parse_device(device)
        dtype = None if dtype is None else float_dtype(dtype)
        for holder in self._holders().values():
            narrow = dtype is not None and dtype.itemsize == 2 and isinstance(holder, Buffer)
            kept = np.dtype(np.float32) if narrow else dtype
            value = holder.value if kept is None else holder.value.astype(kept, copy=False)
            holder.value = value if device is None else to_device(value, device)
        self.zero_grad()
        return self

    def state_dict(self) -> dict[str, Array]:
        """Parameters and buffers by dotted path: the arrays themselves, on the device where they live."""
        return {name: holder.value for name, holder in self._holders().items()}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Copy values in. All names and shapes are checked first: on an error nothing has changed.

        Raises: CheckpointError naming what is missing, unexpected, of another shape, or no array of floats;
            ArgumentError for what is no mapping.
        """
        if not isinstance(state, Mapping):
            raise ArgumentError(f"state: expected arrays by name, as state_dict() gives them, got {told(state)}")
        holders = self._holders()
        shapes = {name: h.shape if isinstance(h, Parameter) else h.value.shape for name, h in holders.items()}
        problems = [f"{name} is missing" for name in shapes if name not in state]
        problems += [f"{name} is unexpected" for name in state if name not in shapes]
        for name in shapes.keys() & state.keys():
            if not is_array(state[name]) or (state[name].dtype.kind != "f" and not is_half(state[name])):
                problems.append(f"{name} is {told(state[name])}, not an array of floats")
            elif state[name].shape != shapes[name]:
                problems.append(f"{name} has shape {state[name].shape} instead of {shapes[name]}")
        if problems:
            more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
            raise CheckpointError(f"the weights belong to another model: {'; '.join(problems[:5])}{more}")
        for name, holder in holders.items():
            value = to_host(state[name])
            if isinstance(holder, Parameter) and not holder.is_drawn:
                holder.value = value.astype(np.float32, copy=True)  # what a first value would have been
            else:
                value = value.astype(holder.value.dtype, copy=True)
                holder.value = to_device(value, device_of(holder.value))

    # --- what is known before any array is there --------------------------------------------------------------

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of one output sample for an input sample of this shape (both without the batch).

        Raises: ShapeError where the layer cannot take it.
        """
        return expect_shape(shape)

    def macs(self, shape: Shape) -> int:
        """Multiply-accumulates of the forward pass for one sample of this shape."""
        return 0

    def columns(self, shape: Shape) -> int:
        """How many numbers im2col lays out for one sample of this shape."""
        return 0

    def decisions(self, cache: Any) -> list[Array]:
        """The discrete choices in a cache: signs, winners. Where one flips, the layer has a kink.

        A gradient check uses them to see that a finite difference crossed no kink.
        """
        return []

    def check(self, x: Array, name: str = "x") -> Array:
        """x, after checking that it is a float array of a shape, dtype and device that the layer can take.

        name: what to call x in the message.

        Raises: ArgumentError, DTypeError, DeviceError, ShapeError.
        """
        if not is_array(x):
            plain = "; np.asarray(x) makes it one" if isinstance(x, np.ndarray) else ""
            raise ArgumentError(f"{self}: expected a NumPy or CuPy array as {name}, got {type(x).__name__}{plain}")
        if not has_float_dtype(x):
            got = x.dtype.name if x.dtype.isnative else f"{x.dtype.name} of foreign byte order"
            raise DTypeError(
                f"{self}: expected float32 or float64, got {got} in {name}; convert it with x.astype(np.float32)"
            )
        if x.ndim < 2 or 0 in x.shape:
            raise ShapeError(
                f"{self}: expected a batch of at least one sample (N, …), none of its axes empty, got {x.shape} in "
                f"{name}; a single sample needs a batch axis, x[None]"
            )
        try:
            self.output_shape(x.shape[1:])
        except ShapeError as error:
            raise ShapeError(f"{self}: {error} in {name} {x.shape}") from None
        for name, holder in vars(self).items():
            if isinstance(holder, Parameter | Buffer):
                value = holder.value
                if value.dtype != x.dtype and not (isinstance(holder, Buffer) and is_half(x)):
                    raise DTypeError(
                        f"{self}: its {name} is {value.dtype.name} but x is {x.dtype.name}; "
                        f"convert one: net.to(dtype='{x.dtype.name}') or x.astype('{value.dtype.name}')"
                    )
                if array_module(value) is not array_module(x) or device_of(value) != device_of(x):
                    raise DeviceError(
                        f"{self}: its {name} is on {device_of(value)} but x is on {device_of(x)}; "
                        f"move one: net.to('{device_of(x)}') or to_device(x, '{device_of(value)}')"
                    )
        return x

    def kept(self, cache: Any, *kinds: Callable[[Any], bool]) -> Any:
        """The cache, after checking that it is one that forward could have kept: `kept(cache, is_array, is_shape)`
        is a tuple of an array and a shape, `kept(cache, is_array)` an array. One of another layer is so found out in
        most cases, in place of an error from deep inside or of a wrong gradient.

        Raises: ArgumentError.
        """
        if cache is None:
            raise ArgumentError(f"{self}: forward kept no cache to go back by; run forward(x, train=True) first")
        return expect_kinds(self, cache, kinds)

    def kept_input(self, cache: Any) -> Array:
        """The cache of a layer that keeps its input, after checking that the layer can take it.

        Raises: ArgumentError, DTypeError, DeviceError, ShapeError.
        """
        return self.check(self.kept(cache, is_array), "the cache")

    def check_gradient(self, dy: Array, shape: Shape, partner: Array | None = None) -> Array:
        """dy, after checking that it has the shape of the output, the device of a partner in its work, and its dtype
        where that is one of floats.

        Raises: ArgumentError, ShapeError, DTypeError, DeviceError.
        """
        if not is_array(dy):
            plain = "; np.asarray(dy) makes it one" if isinstance(dy, np.ndarray) else ""
            raise ArgumentError(f"{self}: expected a NumPy or CuPy array as dy, got {type(dy).__name__}{plain}")
        if dy.shape != shape:
            raise ShapeError(f"{self}: expected the shape of the output {shape}, got {dy.shape} in dy")
        dtype = partner.dtype if partner is not None and has_float_dtype(partner) else dy.dtype
        if dy.dtype != dtype or not has_float_dtype(dy):
            expected = " or ".join(FLOATS) if dtype is dy.dtype else dtype.name
            got = dy.dtype.name if dy.dtype.isnative else f"{dy.dtype.name} of foreign byte order"
            raise DTypeError(f"{self}: expected {expected}, as in the forward pass, got {got} in dy")
        if partner is not None and device_of(dy) != device_of(partner):
            raise DeviceError(f"{self}: dy is on {device_of(dy)} but the cache is on {device_of(partner)}")
        return dy

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def expect_pair(layer: Layer, result: Any) -> tuple[Array, Any]:
    """What forward returned, after checking that it is an output and a cache: a layer of one's own may forget one.

    Raises: ArgumentError.
    """
    if not isinstance(result, tuple) or len(result) != 2:
        raise ArgumentError(f"{layer}: expected forward to return two things, y and a cache, got {told(result)}")
    return result


def expect_kinds(owner: object, cache: Any, kinds: Sequence[Callable[[Any], bool]]) -> Any:
    """The cache, after checking that it is one thing of the kind, or a tuple of things of the kinds.

    Raises: ArgumentError.
    """
    parts = (cache,) if len(kinds) == 1 else cache
    if kinds and not (
        isinstance(parts, tuple)
        and len(parts) == len(kinds)
        and all(is_kind(part) for is_kind, part in zip(kinds, parts, strict=True))
    ):
        raise ArgumentError(f"{owner}: expected the cache that its own forward gave, got {told(cache)}")
    return cache


def is_shape(value: object) -> bool:
    """Whether it is a tuple of sizes, as an array's shape is."""
    return isinstance(value, tuple) and len(value) > 0 and all(type(size) is int and size > 0 for size in value)


def is_map(value: object) -> bool:
    """Whether it is the shape of a batch of feature maps, (N, H, W, C)."""
    return is_shape(value) and len(cast(Shape, value)) == 4


def expect_shape(shape: Any, axes: str = "") -> Shape:
    """The shape as a tuple of Python integers, after checking that it is made of sizes; NumPy's integers count.

    Raises: ShapeError.
    """
    if is_shape(shape):
        return cast(Shape, shape)
    if isinstance(shape, tuple | list) and shape and all(_is_size(n) for n in shape):
        return tuple(map(int, shape))
    named = f", ({axes})" if axes else ""
    raise ShapeError(f"shape: expected a tuple of positive sizes{named}, got {told(shape)}")


def _is_size(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) > 0


def expect_rank(shape: Shape, axes: str) -> Shape:
    """The shape, after checking that it has as many axes as named.

    >>> expect_rank((227, 227, 3), "H, W, C")
    (227, 227, 3)

    Raises: ShapeError.
    """
    shape = expect_shape(shape, axes)
    if len(shape) != axes.count(",") + 1:
        raise ShapeError(f"expected the {axes.count(',') + 2} axes (N, {axes}), got {len(shape) + 1}")
    return shape
