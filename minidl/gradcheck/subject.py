"""A layer or a loss as a function of tensors: of its input, and of each parameter."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.arrays import Array, DTypeLike, array_module, device_of, is_array, to_device
from minidl.errors import ArgumentError
from minidl.layer import Layer, Parameter
from minidl.losses import Loss
from minidl.random import Key


@dataclass
class Function:
    """y = f(tensors), with the input as one more parameter."""

    name: str
    tensors: dict[str, Parameter]
    input: Parameter
    forward: Callable[[Array], tuple[Array, Any]]
    backward: Callable[[Array, Any], Array | None]
    decisions: Callable[[Any], list[Array]]


def function_of(
    subject: Layer | Loss, inputs: tuple[Any, ...], key: Key, dtype: DTypeLike = np.float64, device: str | None = None
) -> Function:
    """A copy of a layer, net or loss that computes in the dtype, at the given inputs. See `check` for these.

    Raises: ArgumentError for another subject, or another number of inputs.
    """
    if isinstance(subject, Loss):
        return _loss_function(subject, inputs, key, dtype, device)
    if isinstance(subject, Layer):
        return _layer_function(subject, inputs, key, dtype, device)
    raise ArgumentError(
        f"expected a layer, a net or a loss, got {subject!r}; a class needs to be called, as in check(MyLayer(), …)"
    )


def _layer_function(
    original: Layer, inputs: tuple[Any, ...], key: Key, dtype: DTypeLike, device: str | None
) -> Function:
    if len(inputs) != 1:
        raise ArgumentError(f"{original}: expected one input, x or its shape, got {len(inputs)}")
    layer = copy.deepcopy(original)
    parameters = layer.parameters()
    if device is None and not is_array(inputs[0]):
        device = next((device_of(parameter.value) for parameter in parameters.values()), "cpu")
    x = Parameter(_array(inputs[0], key.at("x"), device))
    layer.to(device_of(x.value), np.float64)
    for name, parameter in parameters.items():
        _move_apart(parameter, key.at(name))
    layer.to(dtype=dtype)
    x.value = _cast(x.value, dtype)
    kept = [(buffer, buffer.value.copy()) for buffer in layer.buffers().values()]

    def forward(given: Array) -> tuple[Array, Any]:
        for buffer, value in kept:
            buffer.value = value.copy()
        return _pair(layer, layer.forward(given, train=True, key=key))

    name = "x" if "x" not in parameters else "(input)"
    return Function(str(layer), {name: x, **parameters}, x, forward, layer.backward, layer.decisions)


def _loss_function(original: Loss, inputs: tuple[Any, ...], key: Key, dtype: DTypeLike, device: str | None) -> Function:
    if len(inputs) != 2:
        raise ArgumentError(f"{original}: expected two inputs, outputs and targets, got {len(inputs)}")
    loss = copy.deepcopy(original)
    outputs = Parameter(_cast(_array(inputs[0], key.at("outputs"), device), dtype))
    targets = _cast(_array(inputs[1], key.at("targets"), device_of(outputs.value)), dtype)

    def forward(given: Array) -> tuple[Array, Any]:
        value, cache = _pair(loss, loss.forward(given, targets))
        return array_module(value).asarray(value), cache

    def backward(dy: Array, cache: Any) -> Array:
        return loss.backward(cache, dy)

    return Function(str(loss), {"outputs": outputs}, outputs, forward, backward, lambda cache: [])


def _array(given: Any, key: Key, device: str | None) -> Array:
    """A copy of the given array, its floats as float64; or random numbers of the given shape. On the device, or where
    it is.
    """
    if isinstance(given, tuple) and all(isinstance(size, int) for size in given):
        given = np.asarray(key.generator().standard_normal(given))
    values = given if is_array(given) else np.asarray(given)
    copied: Array = values.astype(np.float64 if values.dtype.kind == "f" else values.dtype, copy=True)
    return copied if device is None else to_device(copied, device)


def _cast(values: Array, dtype: DTypeLike) -> Array:
    """Floats in another dtype; integers, such as labels, as they are."""
    cast: Array = values.astype(dtype, copy=False) if values.dtype.kind == "f" else values
    return cast


def _move_apart(parameter: Parameter, key: Key) -> None:
    """Make a parameter of equal numbers generic: each moves by up to a fifth of itself, a zero by up to 0.2."""
    value = parameter.value
    if (value == value.ravel()[0]).all():
        moves = to_device(np.asarray(key.generator().uniform(-0.2, 0.2, value.shape)), device_of(value))
        parameter.value = value + moves * array_module(value).where(value == 0, 1, value)


def _pair(subject: Layer | Loss, result: Any) -> tuple[Any, Any]:
    if not isinstance(result, tuple) or len(result) != 2:
        raise ArgumentError(
            f"{subject}: expected forward to return two things, y and a cache, got {type(result).__name__}"
        )
    return result
