"""One step of training, and the search for the layer to blame when it fails."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minidl.arrays import Array, array_module, is_array
from minidl.combine import Sequential
from minidl.errors import ArgumentError, NonFiniteError, expect_a
from minidl.layer import Layer
from minidl.losses import Loss
from minidl.optim import Optimizer
from minidl.precision import MixedPrecision
from minidl.random import Key

CURE = "try a lower learning rate, a warm-up or another init"


def train_step(
    net: Layer,
    loss: Loss,
    optimizer: Optimizer,
    images: Array,
    labels: Array,
    lr: float,
    key: Key,
    *,
    check: bool = True,
) -> tuple[Any, Array]:
    """Forward, loss, backward, update: returns the loss and the logits that it was computed from. In float16 a step
    whose gradients overflow changes no parameter.

    check: look at the loss before anything is changed. On a GPU the host then waits for it, in each step; without, the
        loss is returned unread, as an array on the device.
    Raises: NonFiniteError, before any parameter is changed, where the loss is NaN or infinite, unless check is False;
        it names the layer in which that first shows. ArgumentError for what is no layer, loss, optimiser or key, and
        for a loss that is not one number. ShapeError, DTypeError, LabelError for images and labels that do not fit.
    """
    expect_a(Layer, "train_step", "net", net)
    expect_a(Loss, "train_step", "loss", loss)
    expect_a(Optimizer, "train_step", "optimizer", optimizer)
    expect_a(Key, "train_step", "key", key)
    with np.errstate(all="ignore"):  # what overflows is told below, by the name of its layer
        logits, cache = net.forward(images, train=True, key=key)
        value: Any
        value, loss_cache = loss.forward(logits, labels)
    if (value.shape if is_array(value) else np.shape(value)) != ():
        raise ArgumentError(f"train_step: loss: expected one that gives a single number, got {loss}")
    if check:
        value = float(value)
        if not math.isfinite(value) and not may_skip(net):
            raise NonFiniteError(f"the loss is {value}: {blame(net, images, key)}")
    with np.errstate(all="ignore"):
        net.backward(loss.backward(loss_cache), cache, input_gradient=False)
        if not (isinstance(net, MixedPrecision) and net.overflowed):
            optimizer.step(lr)
    optimizer.zero_grad()
    return value, logits


def may_skip(net: Layer) -> bool:
    """Whether a loss that is not finite only costs the step: in float16, where a lower loss scale may cure it."""
    return isinstance(net, MixedPrecision) and net.may_skip


def blame(net: Layer, images: Array, key: Key) -> str:
    """Where NaN or infinity first shows: in the images, in a parameter, or in a layer's output."""
    if not _finite(images):
        return "the images themselves hold NaN or infinity"
    bad = [name for name, parameter in net.parameters().items() if not _finite(parameter.value)]
    if bad:
        return f"the parameter {bad[0]} is no longer finite; {CURE}"
    name = _first_bad_layer(net, images, key)
    return f"it first shows in the output of {name}; {CURE}" if name else f"all layers' outputs are finite; {CURE}"


@np.errstate(all="ignore")
def _first_bad_layer(layer: Layer, x: Array, key: Key) -> str | None:
    if isinstance(layer, MixedPrecision):
        return _first_bad_layer(layer.net, x.astype(layer.dtype), key)
    if not isinstance(layer, Sequential):
        return "" if not _finite(layer.forward(x, train=True, key=key)[0]) else None
    for name, child in layer.layers.items():
        found = _first_bad_layer(child, x, key.at(name))
        if found is not None:
            return f"{name}.{found}" if found else f"{name} = {child!r}"
        x = child.forward(x, train=True, key=key.at(name))[0]
    return None


def finite_parameters(net: Layer) -> bool:
    """Whether every parameter and buffer is finite, so that a checkpoint of them is worth keeping."""
    return all(_finite(value) for value in net.state_dict().values())


def _finite(x: Array) -> bool:
    return bool(array_module(x).isfinite(x).all())
