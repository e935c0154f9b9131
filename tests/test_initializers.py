from __future__ import annotations

import math

import numpy as np
import pytest

from minidl.initializers import SCHEMES, constant, fans, glorot, he, initialize, normal
from minidl.layers import BatchNorm2d, Conv2d, Flatten, Linear, Sequential
from minidl.models import get
from minidl.random import Key


def net() -> Sequential:
    return Sequential(
        conv1=Conv2d(4, 64, 5, groups=2),
        norm=BatchNorm2d(64),
        flatten=Flatten(),
        fc=Linear(64, 300),
        out=Linear(300, 9),
    )


def assert_normal(values: np.ndarray, std: float) -> None:
    n = values.size
    assert abs(values.mean()) < 4 * std / math.sqrt(n)
    assert abs(values.std() / std - 1) < 4 / math.sqrt(2 * n)
    assert abs((np.abs(values) < std).mean() - 0.6827) < 4 * 0.47 / math.sqrt(n)


def test_normal():
    values = normal(0.01)((200, 300), np.random.default_rng(0))
    assert values.dtype == np.float32
    assert_normal(values, 0.01)


def test_he_keeps_the_variance_through_relu():
    generator = np.random.default_rng(0)
    assert_normal(he((3, 3, 48, 256), generator), math.sqrt(2 / (9 * 48)))
    x = generator.standard_normal((200, 500)).astype(np.float32)
    for _ in range(5):
        x = np.maximum(x @ he((500, 500), generator), 0)
    assert 0.7 < (x * x).mean() / 1.0 < 1.4


def test_glorot_is_uniform_within_its_limit():
    values = glorot((3, 3, 20, 40), np.random.default_rng(0))
    limit = math.sqrt(6 / (9 * 20 + 9 * 40))
    assert np.abs(values).max() <= limit
    assert np.abs(values).max() > 0.99 * limit
    assert abs(values.mean()) < 4 * limit / math.sqrt(3 * values.size)
    assert abs(values.std() / (limit / math.sqrt(3)) - 1) < 0.03


def test_constant():
    np.testing.assert_array_equal(constant(0.5)((2, 3), np.random.default_rng(0)), np.full((2, 3), 0.5))


def test_fans():
    assert fans((5, 5, 48, 256)) == (5 * 5 * 48, 5 * 5 * 256)
    assert fans((10, 20)) == (10, 20)


def test_a_scheme_reaches_what_it_names():
    model = net()
    initialize(model, {"*weight": normal(0.1), "*bias": constant(0.25), "fc.bias": constant(1)}, Key(0))
    values = {name: parameter.value for name, parameter in model.parameters().items()}
    assert_normal(values["conv1.weight"], 0.1)
    assert_normal(values["fc.weight"], 0.1)
    assert set(values["conv1.bias"]) == {0.25}
    assert set(values["fc.bias"]) == {1}  # the last pattern that matches wins
    assert set(values["norm.gamma"]) == {1}
    assert set(values["norm.beta"]) == {0}


@pytest.mark.parametrize("name", SCHEMES)
def test_named_schemes(name):
    model = net()
    initialize(model, SCHEMES[name], Key(0))
    weight = model.parameters()["conv1.weight"].value
    fan_in, fan_out = 25 * 2, 25 * 64
    std = {"he": math.sqrt(2 / fan_in), "glorot": math.sqrt(2 / (fan_in + fan_out))}[name]
    assert abs(weight.std() / std - 1) < 0.06
    assert not model.parameters()["conv1.bias"].value.any()


def test_values_follow_from_key_and_name_alone():
    model, other = net(), Sequential(fc=Linear(64, 300))
    initialize(model, SCHEMES["he"], Key(5))
    initialize(other, SCHEMES["he"], Key(5))
    np.testing.assert_array_equal(model["fc"].weight.value, other["fc"].weight.value)
    initialize(other, SCHEMES["he"], Key(6))
    assert not np.array_equal(model["fc"].weight.value, other["fc"].weight.value)


def test_the_dtype_stays():
    model = net().to(dtype="float64")
    initialize(model, SCHEMES["he"], Key(5))
    assert {parameter.value.dtype for parameter in model.parameters().values()} == {np.dtype("float64")}
    single = net()
    initialize(single, SCHEMES["he"], Key(5))
    np.testing.assert_array_equal(model["fc"].weight.value, single["fc"].weight.value)


def test_nothing_is_drawn_twice():
    model = net()
    model["fc"].weight._draw = lambda: pytest.fail("drawn only to be overwritten")
    initialize(model, SCHEMES["he"], Key(0))


# Krizhevsky, Sutskever, Hinton 2012, §5; and Caffe's bvlc_alexnet.
@pytest.mark.parametrize(("scheme", "bias", "fc6_std"), [("paper", 1, 0.01), ("caffe", 0.1, 0.005)])
@pytest.mark.parametrize("name", ["alexnet_mini", "alexnet_no_padding"])
def test_alexnets_own_schemes(name, scheme, bias, fc6_std):
    model = get(name).build(num_classes=10)
    initialize(model, get(name).scheme(scheme), Key(0))
    values = {path: parameter.value for path, parameter in model.parameters().items()}
    for layer in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"):
        expected = bias if layer in ("conv2", "conv4", "conv5", "fc6", "fc7") else 0
        np.testing.assert_array_equal(values[f"{layer}.bias"], np.float32(expected), layer)
        assert_normal(values[f"{layer}.weight"], fc6_std if layer in ("fc6", "fc7") else 0.01)
