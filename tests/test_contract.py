"""The laws that every layer, container and loss keeps, held against every line of the catalogue.

A new one needs no test of its own for any of this: a line in `minidl/catalogue.py` is enough, and
`test_catalogue.py` fails where that is missing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import LAYOUTS, laid_out

from minidl import Key, gradcheck
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


def made(line: str, dtype: str = "float64", batch: int | None = None) -> tuple[Layer, np.ndarray]:
    make, shape = LAYERS[line]
    x = np.random.default_rng(3).standard_normal((batch or shape[0], *shape[1:])).astype(dtype)
    return make().to(dtype=dtype), x


def passes(
    layer: Layer, x: np.ndarray, dy: np.ndarray | None = None, **options: Any
) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
    """y, dx and the parameters' gradients of one forward and backward pass."""
    layer.zero_grad()
    y, cache = layer.forward(x, train=True, key=KEY)
    dx = layer.backward(like(y) if dy is None else dy, cache, **options)
    return y, dx, {name: parameter.grad for name, parameter in layer.parameters().items()}


def like(y: np.ndarray) -> np.ndarray:
    return np.random.default_rng(4).standard_normal(y.shape).astype(y.dtype)


def assert_equal(a: Any, b: Any) -> None:
    """Equal to the last bit: arrays, or lists or dictionaries of arrays."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    elif isinstance(a, list):
        for one, other in zip(a, b, strict=True):
            np.testing.assert_array_equal(one, other)
    else:
        np.testing.assert_array_equal(a, b)


# --- layers and containers --------------------------------------------------------------------------------------


@every_layer
def test_gradients_are_right(line, device):
    make, shape = LAYERS[line]
    report = gradcheck.check(make(), shape)
    assert report.passed, report


@every_layer
def test_a_batch_of_one(line, device):
    make, shape = LAYERS[line]
    report = gradcheck.check(make(), (1, *shape[1:]))
    assert report.passed, report


@every_layer
def test_output_shape(line, device):
    layer, x = made(line)
    assert layer(x).shape == (len(x), *layer.output_shape(x.shape[1:]))


@every_layer
@each_dtype
def test_dtypes_stay(line, dtype, device):
    layer, x = made(line, dtype)
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
    layer, x = made(line)
    dy = like(layer(x))
    x_before, dy_before = x.copy(), dy.copy()
    parameters = {name: parameter.value.copy() for name, parameter in layer.parameters().items()}
    x.flags.writeable = dy.flags.writeable = False
    y, cache = layer.forward(x, train=True, key=KEY)
    y_before, y.flags.writeable = y.copy(), False
    layer.backward(dy, cache)
    assert_equal([x, y, dy], [x_before, y_before, dy_before])
    assert_equal({name: parameter.value for name, parameter in layer.parameters().items()}, parameters)


@every_layer
def test_gradients_accumulate_in_arrays_of_their_own(line, device):
    layer, x = made(line)
    dy = like(layer(x))
    dy.flags.writeable = False
    _, _, once = passes(layer, x, dy)
    once = {name: gradient.copy() for name, gradient in once.items()}
    _, cache = layer.forward(x, train=True, key=KEY)
    layer.backward(dy, cache)
    for name, parameter in layer.parameters().items():
        np.testing.assert_allclose(parameter.grad, 2 * once[name], rtol=1e-12, atol=1e-12, err_msg=name)
        assert not np.shares_memory(parameter.grad, parameter.value), name


@every_layer
def test_a_cache_is_a_value(line, device):
    """Nothing between forward and backward is in the layer: another forward pass in between changes nothing."""
    layer, x = made(line)
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
    layer, x = made(line)
    dy = like(layer(x))
    y, dx, gradients = passes(layer, x, dy)
    y2, dx2, gradients2 = passes(layer, laid_out(x, layout), laid_out(dy, layout))
    for one, other in (y, y2), (dx, dx2), *((gradients[name], gradients2[name]) for name in gradients):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


@every_layer
def test_inference_keeps_and_changes_nothing(line, device):
    layer, x = made(line)
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
    layer, x = made(line, dtype)
    first, second = passes(layer, x), passes(layer, x)
    for a, b in zip(first, second, strict=True):
        assert_equal(a, b)


@every_layer
def test_without_input_gradient(line, device):
    layer, x = made(line)
    _, _, expected = passes(layer, x)
    _, dx, gradients = passes(layer, x, input_gradient=False)
    assert dx is None
    assert_equal(gradients, expected)


@pytest.mark.parametrize("line", [line for line, (make, shape) in LAYERS.items() if fits(make(), shape[1:])])
def test_a_layer_may_stand_twice(line, device):
    make, shape = LAYERS[line]
    layer = make()
    report = gradcheck.check(Sequential(first=layer, second=layer), shape)
    assert report.passed, report


# --- losses -----------------------------------------------------------------------------------------------------


def made_loss(line: str, dtype: str = "float64") -> tuple[Loss, np.ndarray, np.ndarray]:
    """A loss, outputs and targets."""
    make, shape, targets = LOSSES[line]
    generator = np.random.default_rng(3)
    outputs = generator.standard_normal(shape).astype(dtype)
    if isinstance(targets, tuple):  # a shape
        return make(), outputs, generator.standard_normal(targets).astype(dtype)
    return make(), outputs, np.array(targets)


def value_and_gradient(loss: Loss, outputs: np.ndarray, targets: np.ndarray, **options: Any) -> list[np.ndarray]:
    value, cache = loss.forward(outputs, targets)
    return [value, loss.backward(cache, **options)]


@every_loss
def test_loss_gradients_are_right(line, device):
    make, shape, targets = LOSSES[line]
    report = gradcheck.check(make(), shape, targets)
    assert report.passed, report


@every_loss
def test_a_loss_of_a_batch_of_one(line, device):
    loss, outputs, targets = made_loss(line)
    report = gradcheck.check(loss, outputs[:1], targets[:1])
    assert report.passed, report


@every_loss
@each_dtype
def test_losses_keep_dtypes(line, dtype, device):
    loss, outputs, targets = made_loss(line, dtype)
    value, gradient = value_and_gradient(loss, outputs, targets)
    assert np.asarray(value).dtype == gradient.dtype == dtype
    assert gradient.shape == outputs.shape
    assert_equal(value_and_gradient(loss, outputs, targets, scale=2.0)[1], 2 * gradient)


@every_loss
def test_losses_do_not_write_into_outputs_or_targets(line, device):
    loss, outputs, targets = made_loss(line)
    before = [outputs.copy(), targets.copy()]
    outputs.flags.writeable = targets.flags.writeable = False
    value_and_gradient(loss, outputs, targets)
    assert_equal([outputs, targets], before)


@every_loss
@each_layout
def test_memory_layout_does_not_matter_to_losses(line, layout, device):
    loss, outputs, targets = made_loss(line)
    expected = value_and_gradient(loss, outputs, targets)
    for one, other in zip(value_and_gradient(loss, laid_out(outputs, layout), targets), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


@every_loss
@each_dtype
def test_a_loss_repeated_gives_the_same_bits(line, dtype, device):
    loss, outputs, targets = made_loss(line, dtype)
    value, cache = loss.forward(outputs, targets)
    first = [value, loss.backward(cache)]
    assert_equal(loss.backward(cache), first[1])
    assert_equal(value_and_gradient(loss, outputs, targets), first)
