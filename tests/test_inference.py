"""`fuse` and `inference` compute what the net computes."""

from __future__ import annotations

import copy
import gc

import numpy as np
import pytest

from minidl import Key, gradcheck, models, settings
from minidl.combine import Concat, Sequential, Sum
from minidl.errors import ArgumentError
from minidl.inference import Affine, Conv2dReLU, LinearReLU, fuse, inference
from minidl.layer import Layer, Parameter
from minidl.layers import BatchNorm2d, Conv2d, Dropout, Flatten, Linear, LocalResponseNorm, MaxPool2d, ReLU
from minidl.losses import SoftmaxCrossEntropy


def everything(dtype="float64"):
    """All that is joined, and all that stands in the way."""
    shared = Conv2d(4, 4, 3, padding=1)
    net = Sequential(
        conv1=Conv2d(3, 4, 3, padding=1, bias=False), norm1=BatchNorm2d(4), relu1=ReLU(), drop1=Dropout(0.3),
        block=Sum(body=Sequential(shared, ReLU(), BatchNorm2d(4)), shortcut=Dropout(0.5)),
        again=shared, norm2=LocalResponseNorm(), relu2=ReLU(), pool=MaxPool2d(2),
        both=Concat(Sequential(Conv2d(4, 2, 1), ReLU()), ReLU()),
        flatten=Flatten(), drop2=Dropout(0.5), fc1=Linear(54, 5), relu3=ReLU(), fc2=Linear(5, 3),
    ).to(dtype=dtype)  # fmt: skip
    for seed, holder in enumerate([*net.parameters().values(), *net.buffers().values()]):
        draw = np.random.default_rng(seed)
        holder.value = (abs(draw.standard_normal(holder.value.shape)) + 0.1).astype(dtype) / 4
    return net


def images(normal, dtype="float64"):
    return normal(2, 6, 6, 3, dtype=dtype)


def test_inference_computes_the_inference_pass(normal):
    net, x = everything(), images(normal)
    fixed = inference(net)
    np.testing.assert_allclose(fixed(x), net(x), rtol=1e-12)
    assert [*fixed.layers] == ["conv1", "block", "again", "norm2", "relu2", "pool", "both", "flatten", "fc1", "fc2"]
    assert isinstance(fixed["conv1"], Conv2dReLU)
    assert isinstance(fixed["fc1"], LinearReLU)
    assert isinstance(fixed["block"]["body"]["2"], Affine)
    assert fixed["block"]["body"]["0"].weight is fixed["again"].weight  # what was shared still is


@pytest.mark.parametrize("name", ["alexnet_mini", "lenet5", "alexnet_mini(num_classes=3)"])
def test_inference_of_models(name, normal):
    architecture, options = models.parse(name)
    net = architecture.build(**options)
    x = normal(2, architecture.input_size, architecture.input_size, architecture.input_channels, dtype="float32")
    np.testing.assert_allclose(inference(net)(x), net(x), rtol=1e-4, atol=1e-5)


def test_the_copy_is_independent_and_read_only(normal):
    net, x = everything(), images(normal)
    fixed = inference(net)
    before = fixed(x)
    for parameter in net.parameters().values():
        parameter.value += 1
    np.testing.assert_array_equal(fixed(x), before)
    for value in fixed.state_dict().values():
        with pytest.raises(ValueError, match="read-only"):
            value += 1


def test_gradients_of_the_inference_pass(normal):
    net = inference(everything())
    report = gradcheck.check(net, (2, 6, 6, 3))
    assert report.passed, report


@pytest.mark.parametrize("layer", [Conv2dReLU(3, 4, 3), LinearReLU(5, 4), Affine(np.array([2.0, 3.0]), np.zeros(2))])
def test_gradients_of_what_is_joined(layer):
    shape = {Conv2dReLU: (2, 5, 5, 3), LinearReLU: (3, 5), Affine: (2, 4, 2)}[type(layer)]
    report = gradcheck.check(layer, shape)
    assert report.passed, report


def test_fuse_trains_the_net_itself(normal):
    net, x, loss = everything(), images(normal), SoftmaxCrossEntropy()
    twin = copy.deepcopy(net)
    for one, run in (net, fuse(net)), (twin, twin):
        assert run.parameters().keys() == one.parameters().keys()
        logits, cache = run.forward(x, train=True, key=Key(3))
        run.backward(loss.backward(loss.forward(logits, np.array([0, 1]))[1]), cache, input_gradient=False)
    for (name, ours), theirs in zip(net.parameters().items(), twin.parameters().values(), strict=True):
        np.testing.assert_allclose(ours.grad, theirs.grad, rtol=1e-12, err_msg=name)
    for ours, theirs in zip(net.buffers().values(), twin.buffers().values(), strict=True):
        np.testing.assert_array_equal(ours.value, theirs.value)


def test_layers_of_ones_own_are_left_as_they_are(normal):
    class Doubled(Conv2d):
        def forward(self, x, *, train=False, key=None):
            y, cache = super().forward(x, train=train, key=key)
            return 2 * y, cache

    class Wrapper(Layer):
        def __init__(self):
            self.inner, self.factor = Sequential(Doubled(3, 2, 3), ReLU()), Parameter(np.array([3.0], "f"))

        def forward(self, x, *, train=False, key=None):
            return self.factor.value * self.inner(x), None

    net, x = Wrapper(), images(normal, "float32")
    for made in inference(net), fuse(net):
        assert type(made.inner["0"]) is Doubled
        np.testing.assert_array_equal(made(x), net(x))


@pytest.mark.parametrize("algorithm", ["im2col", "winograd"])
def test_filters_are_transformed_once(algorithm, normal):
    from minidl.kernels import frozen

    gc.collect()
    before = len(frozen._made)
    net = Sequential(Conv2d(32, 32, 3, padding=1), ReLU())
    x = normal(4, 20, 20, 32, dtype="float32")
    with settings(conv2d=algorithm):
        fixed = inference(net)
        first = fixed(x)
        assert len(frozen._made) == before + (algorithm != "im2col")
        np.testing.assert_array_equal(fixed(x), first)
        assert len(frozen._made) == before + (algorithm != "im2col")
        np.testing.assert_allclose(first, net(x), atol=1e-4)
    del fixed
    gc.collect()
    assert len(frozen._made) == before  # what was made goes with its weights


def test_a_lone_dropout_and_bad_input():
    x = np.ones((1, 3))
    np.testing.assert_array_equal(inference(Dropout(0.5))(x), x)
    for make in inference, fuse:
        with pytest.raises(ArgumentError, match=f"{make.__name__}: net: expected a Layer, got 'alexnet'"):
            make("alexnet")
