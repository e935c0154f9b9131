"""The laws that every layer, container and loss keeps, held against every line of the catalogue.

A new one needs no test of its own for any of this: a line in `minidl/catalogue.py` is enough, and
`test_catalogue.py` fails where that is missing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import LAYOUTS, host, laid_out, locked

from minidl import Key, gradcheck
from minidl.arrays import array_module, device_of, to_device
from minidl.catalogue import LAYERS, LOSSES
from minidl.combine import Sequential
from minidl.layer import Layer, Shape
from minidl.layers import BatchNorm2d, Dropout
from minidl.losses import Loss

KEY = Key(11)


def fits(layer: Layer, shape: Shape) -> bool:
    """Whether a layer could follow itself."""
    return layer.output_shape(shape) == shape


every_layer = pytest.mark.parametrize("line", LAYERS)
every_loss = pytest.mark.parametrize("line", LOSSES)
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
each_layout = pytest.mark.parametrize("layout", LAYOUTS[1:])


def made(line: str, device: str, dtype: str = "float64") -> tuple[Layer, np.ndarray]:
    make, shape = LAYERS[line]
    return make().to(device, dtype), normal(3, shape, device, dtype)


def normal(seed: int, shape: Shape, device: str, dtype: str = "float64") -> np.ndarray:
    return to_device(np.random.default_rng(seed).standard_normal(shape).astype(dtype), device)


def passes(
    layer: Layer, x: np.ndarray, dy: np.ndarray | None = None, **options: Any
) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
    """y, dx and the parameters' gradients of one forward and backward pass."""
    layer.zero_grad()
    y, cache = layer.forward(x, train=True, key=KEY)
    dx = layer.backward(like(y) if dy is None else dy, cache, **options)
    return y, dx, {name: parameter.grad for name, parameter in layer.parameters().items()}


def like(y: np.ndarray) -> np.ndarray:
    return normal(4, y.shape, device_of(y), y.dtype)


def assert_equal(a: Any, b: Any) -> None:
    """Equal to the last bit: arrays, or lists or dictionaries of arrays."""
    a, b = host(a), host(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    elif isinstance(a, list):
        for one, other in zip(a, b, strict=True):
            np.testing.assert_array_equal(one, other)
    else:
        np.testing.assert_array_equal(a, b)


def assert_close(a: np.ndarray, b: np.ndarray, name: str = "") -> None:
    np.testing.assert_allclose(host(a), host(b), rtol=1e-12, atol=1e-12, err_msg=name)


# --- layers and containers --------------------------------------------------------------------------------------


@every_layer
def test_gradients_are_right(line, device):
    make, shape = LAYERS[line]
    report = gradcheck.check(make(), normal(3, shape, device))
    assert report.passed, report


@every_layer
def test_a_batch_of_one(line, device):
    make, shape = LAYERS[line]
    report = gradcheck.check(make(), normal(3, (1, *shape[1:]), device))
    assert report.passed, report


@every_layer
def test_output_shape(line, device):
    layer, x = made(line, device)
    assert layer(x).shape == (len(x), *layer.output_shape(x.shape[1:]))


@every_layer
@each_dtype
def test_dtypes_stay(line, dtype, device):
    layer, x = made(line, device, dtype)
    y, dx, gradients = passes(layer, x)
    assert y.dtype == dx.dtype == dtype
    assert layer(x).dtype == dtype
    assert dx.shape == x.shape
    for name, gradient in gradients.items():
        assert gradient.dtype == dtype, name
    for name, value in layer.state_dict().items():
        assert value.dtype == dtype, name


@every_layer
def test_what_others_may_hold_is_not_written_into(line, device):
    layer, x = made(line, device)
    dy = like(layer(x))
    x_before, dy_before = x.copy(), dy.copy()
    parameters = {name: parameter.value.copy() for name, parameter in layer.parameters().items()}
    locked(x, dy)
    y, cache = layer.forward(x, train=True, key=KEY)
    y_before = y.copy()
    locked(y)
    layer.backward(dy, cache)
    assert_equal([x, y, dy], [x_before, y_before, dy_before])
    assert_equal({name: parameter.value for name, parameter in layer.parameters().items()}, parameters)


@every_layer
def test_gradients_accumulate_in_arrays_of_their_own(line, device):
    layer, x = made(line, device)
    dy = like(layer(x))
    locked(dy)
    _, _, once = passes(layer, x, dy)
    once = {name: gradient.copy() for name, gradient in once.items()}
    _, cache = layer.forward(x, train=True, key=KEY)
    layer.backward(dy, cache)
    for name, parameter in layer.parameters().items():
        assert_close(parameter.grad, 2 * once[name], name)
        assert not array_module(parameter.grad).shares_memory(parameter.grad, parameter.value), name


@every_layer
def test_a_cache_is_a_value(line, device):
    """Nothing between forward and backward is in the layer: another forward pass in between changes nothing."""
    layer, x = made(line, device)
    y, dx, gradients = passes(layer, x)
    layer.zero_grad()
    held = attributes(layer)
    _, cache = layer.forward(x, train=True, key=KEY)
    layer.forward(-2 * x, train=True, key=KEY.at("another"))
    assert attributes(layer) == held
    assert_equal(layer.backward(like(y), cache), dx)
    assert_equal({name: parameter.grad for name, parameter in layer.parameters().items()}, gradients)


def attributes(layer: Layer) -> dict[str, int]:
    """Which objects the layer and its children hold, by path."""
    held = {name: id(value) for name, value in vars(layer).items()}
    for child, inner in layer.children().items():
        held |= {f"{child}.{name}": value for name, value in attributes(inner).items()}
    return held


@every_layer
@each_layout
def test_memory_layout_does_not_matter(line, layout, device):
    layer, x = made(line, device)
    dy = like(layer(x))
    y, dx, gradients = passes(layer, x, dy)
    y2, dx2, gradients2 = passes(layer, laid_out(x, layout), laid_out(dy, layout))
    for one, other in (y, y2), (dx, dx2), *((gradients[name], gradients2[name]) for name in gradients):
        assert_close(one, other)


@every_layer
def test_inference_keeps_and_changes_nothing(line, device):
    layer, x = made(line, device)
    before, held = {name: value.copy() for name, value in layer.state_dict().items()}, attributes(layer)
    y, cache = layer.forward(x)
    assert cache is None
    assert attributes(layer) == held
    assert_equal(layer.state_dict(), before)
    if not holds(layer, Dropout, BatchNorm2d):
        trained, _ = layer.forward(x, train=True, key=KEY)
        assert_equal(y, trained)


def holds(layer: Layer, *kinds: type) -> bool:
    return isinstance(layer, kinds) or any(holds(child, *kinds) for child in layer.children().values())


@every_layer
@each_dtype
def test_the_same_key_gives_the_same_bits(line, dtype, device):
    layer, x = made(line, device, dtype)
    first, second = passes(layer, x), passes(layer, x)
    for a, b in zip(first, second, strict=True):
        assert_equal(a, b)


@every_layer
def test_without_input_gradient(line, device):
    layer, x = made(line, device)
    _, _, expected = passes(layer, x)
    _, dx, gradients = passes(layer, x, input_gradient=False)
    assert dx is None
    assert_equal(gradients, expected)


@pytest.mark.parametrize("line", [line for line, (make, shape) in LAYERS.items() if fits(make(), shape[1:])])
def test_a_layer_may_stand_twice(line, device):
    make, shape = LAYERS[line]
    layer = make()
    report = gradcheck.check(Sequential(first=layer, second=layer), normal(3, shape, device))
    assert report.passed, report


# --- losses -----------------------------------------------------------------------------------------------------


def made_loss(line: str, device: str, dtype: str = "float64") -> tuple[Loss, np.ndarray, np.ndarray]:
    """A loss, outputs and targets."""
    make, shape, targets = LOSSES[line]
    outputs = normal(3, shape, device, dtype)
    if isinstance(targets, tuple):  # a shape
        return make(), outputs, normal(5, targets, device, dtype)
    return make(), outputs, to_device(np.array(targets), device)


def value_and_gradient(loss: Loss, outputs: np.ndarray, targets: np.ndarray, **options: Any) -> list[np.ndarray]:
    value, cache = loss.forward(outputs, targets)
    return [value, loss.backward(cache, **options)]


@every_loss
def test_loss_gradients_are_right(line, device):
    report = gradcheck.check(*made_loss(line, device))
    assert report.passed, report


@every_loss
def test_a_loss_of_a_batch_of_one(line, device):
    loss, outputs, targets = made_loss(line, device)
    report = gradcheck.check(loss, outputs[:1], targets[:1])
    assert report.passed, report


@every_loss
@each_dtype
def test_losses_keep_dtypes(line, dtype, device):
    loss, outputs, targets = made_loss(line, device, dtype)
    value, gradient = value_and_gradient(loss, outputs, targets)
    assert np.asarray(host(value)).dtype == gradient.dtype == dtype
    assert gradient.shape == outputs.shape
    assert_equal(value_and_gradient(loss, outputs, targets, scale=2.0)[1], 2 * gradient)


@every_loss
def test_losses_do_not_write_into_outputs_or_targets(line, device):
    loss, outputs, targets = made_loss(line, device)
    before = [outputs.copy(), targets.copy()]
    locked(outputs, targets)
    value_and_gradient(loss, outputs, targets)
    assert_equal([outputs, targets], before)


@every_loss
@each_layout
def test_memory_layout_does_not_matter_to_losses(line, layout, device):
    loss, outputs, targets = made_loss(line, device)
    expected = value_and_gradient(loss, outputs, targets)
    for one, other in zip(value_and_gradient(loss, laid_out(outputs, layout), targets), expected, strict=True):
        assert_close(one, other)


@every_loss
@each_dtype
def test_a_loss_repeated_gives_the_same_bits(line, dtype, device):
    loss, outputs, targets = made_loss(line, device, dtype)
    value, cache = loss.forward(outputs, targets)
    first = [value, loss.backward(cache)]
    assert_equal(loss.backward(cache), first[1])
    assert_equal(value_and_gradient(loss, outputs, targets), first)
