"""The laws that every layer keeps, held against every line of the catalogue.

A new layer needs no test of its own for any of this: a line in `minidl/catalogue.py` is enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import minidl
from minidl import Key, gradcheck
from minidl.catalogue import LAYERS, LOSSES
from minidl.combine import Sequential
from minidl.layer import Layer, Shape
from minidl.layers import BatchNorm2d, Dropout

KEY = Key(11)


@pytest.fixture(params=["cpu", "reference"])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """The kernels of the CPU, and the ops' own bodies."""
    with minidl.settings(kernels="auto" if request.param == "cpu" else "reference"):
        yield request.param


def fits(layer: Layer, shape: Shape) -> bool:
    """Whether a layer could follow itself."""
    return layer.output_shape(shape) == shape


every_layer = pytest.mark.parametrize("line", LAYERS)
every_loss = pytest.mark.parametrize("line", LOSSES)
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def made(line: str, dtype: str = "float64", batch: int | None = None) -> tuple[Layer, np.ndarray]:
    make, shape = LAYERS[line]
    x = np.random.default_rng(3).standard_normal((batch or shape[0], *shape[1:])).astype(dtype)
    return make().to(dtype=dtype), x


def passes(
    layer: Layer, x: Any, dy: Any = None, **options: Any
) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
    """y, dx and the parameters' gradients of one forward and backward pass."""
    layer.zero_grad()
    y, cache = layer.forward(x, train=True, key=KEY)
    dx = layer.backward(like(y) if dy is None else dy, cache, **options)
    return y, dx, {name: parameter.grad for name, parameter in layer.parameters().items()}


def like(y: np.ndarray) -> np.ndarray:
    return np.random.default_rng(4).standard_normal(y.shape).astype(y.dtype)


def assert_equal(a: Any, b: Any) -> None:
    """Equal to the last bit, in arrays or dictionaries of arrays."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    else:
        np.testing.assert_array_equal(a, b)


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
def test_inputs_are_not_written_into(line, device):
    layer, x = made(line)
    dy = like(layer(x))
    x.flags.writeable = dy.flags.writeable = False
    x_before, dy_before = x.copy(), dy.copy()
    passes(layer, x, dy)
    passes(layer, x, dy)
    assert_equal(x, x_before)
    assert_equal(dy, dy_before)


@every_layer
def test_gradients_accumulate(line, device):
    layer, x = made(line)
    y, _, once = passes(layer, x)
    once = {name: gradient.copy() for name, gradient in once.items()}
    _, cache = layer.forward(x, train=True, key=KEY)
    layer.backward(like(y), cache)
    for name, parameter in layer.parameters().items():
        np.testing.assert_allclose(parameter.grad, 2 * once[name], rtol=1e-12, atol=1e-12, err_msg=name)


@every_layer
@pytest.mark.parametrize("order", ["Fortran", "strided", "reversed"])
def test_memory_layout_does_not_matter(line, order, device):
    layer, x = made(line)
    dy = like(layer(x))
    y, dx, gradients = passes(layer, x, dy)
    y2, dx2, gradients2 = passes(layer, laid_out(x, order), laid_out(dy, order))
    for one, other in (y, y2), (dx, dx2), *((gradients[name], gradients2[name]) for name in gradients):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def laid_out(a: np.ndarray, order: str) -> np.ndarray:
    """The same numbers, otherwise arranged in memory."""
    if order == "Fortran":
        return np.asfortranarray(a)
    if order == "strided":
        wide = np.full((*a.shape[:-1], 2 * a.shape[-1]), np.nan)
        wide[..., ::2] = a
        return wide[..., ::2]
    return np.ascontiguousarray(a[::-1, ..., ::-1])[::-1, ..., ::-1]


@every_layer
def test_inference_keeps_nothing(line, device):
    layer, x = made(line)
    y, cache = layer.forward(x)
    assert cache is None
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


@every_loss
def test_loss_gradients_are_right(line, device):
    make, shape, targets = LOSSES[line]
    report = gradcheck.check(make(), shape, targets)
    assert report.passed, report


@every_loss
@each_dtype
def test_losses_keep_dtypes_and_inputs(line, dtype, device):
    make, shape, targets = LOSSES[line]
    outputs = np.random.default_rng(3).standard_normal(shape).astype(dtype)
    wanted = np.zeros(targets, dtype) if isinstance(targets, tuple) else np.array(targets)
    outputs.flags.writeable = wanted.flags.writeable = False
    value, cache = make().forward(outputs, wanted)
    gradient = make().backward(cache)
    assert np.asarray(value).dtype == gradient.dtype == dtype
    assert gradient.shape == shape
    np.testing.assert_array_equal(make().backward(cache, scale=2.0), 2 * gradient)
