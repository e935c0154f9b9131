"""The models against the sizes that their papers, and the arithmetic, give."""

from __future__ import annotations

import numpy as np
import pytest

from minidl import models
from minidl.errors import ArgumentError, ShapeError, UnknownNameError
from minidl.layers import Conv2d, Dropout, Linear, LocalResponseNorm, MaxPool2d, Sequential
from minidl.random import Key


def parameter_count(net: Sequential) -> int:
    return sum(parameter.size for parameter in net.parameters().values())


def shapes(net: Sequential, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    found = {}
    for name, layer in net.layers.items():
        shape = found[name] = layer.output_shape(shape)
    return found


@pytest.mark.parametrize(
    ("spec", "size", "parameters", "macs"),
    [
        ("alexnet", 227, 60_965_224, 724_406_816),
        ("alexnet(groups=1)", 227, 62_378_344, 1_135_256_096),
        ("alexnet(lrn=False)", 227, 60_965_224, 724_406_816),
        ("alexnet_no_padding", 227, 28_823_912, 614_310_432),
        ("bvlc_alexnet", 227, 60_965_224, 724_406_816),
        ("vgg11", 224, 132_863_336, 7_609_090_048),
        ("vgg13", 224, 133_047_848, 11_308_466_176),
        ("vgg16", 224, 138_357_544, 15_470_264_320),
        ("vgg19", 224, 143_667_240, 19_632_062_464),
        ("lenet5", 28, 61_706, 416_520),
        ("alexnet_mini", 32, 368_842, 14_529_536),
    ],
)
def test_parameters_and_multiplications(spec, size, parameters, macs):
    model, options = models.parse(spec)
    net = model.build(**options)
    assert model.input_size == size
    assert parameter_count(net) == parameters
    assert net.macs((size, size, model.input_channels)) == macs
    assert not any(parameter.is_drawn for parameter in net.parameters().values())


def test_the_smaller_maps_of_224_pixels_without_padding():
    flat = models.alexnet_no_padding().output_shape
    with pytest.raises(ShapeError, match="fc6: expected 1024 features, got 256"):
        flat((224, 224, 3))


ALEXNET = {
    "conv1": ((55, 55, 96), 34_944),
    "pool1": ((27, 27, 96), 0),
    "conv2": ((27, 27, 256), 307_456),
    "pool2": ((13, 13, 256), 0),
    "conv3": ((13, 13, 384), 885_120),
    "conv4": ((13, 13, 384), 663_936),
    "conv5": ((13, 13, 256), 442_624),
    "pool5": ((6, 6, 256), 0),
    "flatten": ((9216,), 0),
    "fc6": ((4096,), 37_752_832),
    "fc7": ((4096,), 16_781_312),
    "fc8": ((1000,), 4_097_000),
}


def test_alexnet_layer_by_layer():
    net = models.alexnet()
    found = shapes(net, (227, 227, 3))
    for name, (shape, parameters) in ALEXNET.items():
        assert found[name] == shape, name
        assert sum(parameter.size for parameter in net[name].parameters().values()) == parameters, name


def test_alexnet_is_the_papers():
    net = models.alexnet()
    order = "conv1 relu1 norm1 pool1 conv2 relu2 norm2 pool2 conv3 relu3 conv4 relu4 conv5 relu5 pool5 flatten"
    assert list(net.layers) == f"{order} fc6 relu6 drop6 fc7 relu7 drop7 fc8".split()
    for norm in (net["norm1"], net["norm2"]):
        assert isinstance(norm, LocalResponseNorm)
        assert (norm.size, norm.alpha, norm.beta, norm.k, norm.average) == (5, 1e-4, 0.75, 2, False)
    for pool in (net["pool1"], net["pool2"], net["pool5"]):
        assert isinstance(pool, MaxPool2d)
        assert (pool.window.kernel, pool.window.stride) == ((3, 3), (2, 2))
    assert [layer.groups for layer in net.layers.values() if isinstance(layer, Conv2d)] == [1, 2, 1, 2, 2]
    assert [layer.p for layer in net.layers.values() if isinstance(layer, Dropout)] == [0.5, 0.5]


def test_alexnet_without_normalisation():
    net = models.alexnet(lrn=False)
    assert [name for name in net.layers if name.startswith("norm")] == []
    assert net.output_shape((227, 227, 3)) == (1000,)


def test_alexnet_no_padding_layer_by_layer():
    found = shapes(models.alexnet_no_padding(), (227, 227, 3))
    sides = {"conv1": 55, "pool1": 27, "conv2": 23, "pool2": 11, "conv3": 9, "conv4": 7, "conv5": 5, "pool5": 2}
    assert {name: found[name][0] for name in sides} == sides
    assert found["flatten"] == (1024,)


def test_alexnet_mini_has_all_that_alexnet_has():
    mini, full = models.alexnet_mini(), models.alexnet()
    assert list(mini.layers) == list(full.layers)
    for name, layer in full.layers.items():
        assert type(mini[name]) is type(layer)
        if isinstance(layer, Conv2d):
            assert (mini[name].groups > 1) == (layer.groups > 1) or name == "conv3"
        if isinstance(layer, MaxPool2d):
            assert mini[name].window == layer.window


@pytest.mark.parametrize("weight_layers", [11, 13, 16, 19])
def test_vgg_block_by_block(weight_layers):
    net = models.get(f"vgg{weight_layers}").build()
    found = shapes(net, (224, 224, 3))
    blocks = {"pool1": (112, 64), "pool2": (56, 128), "pool3": (28, 256), "pool4": (14, 512), "pool5": (7, 512)}
    assert {name: found[name] for name in blocks} == {name: (n, n, C) for name, (n, C) in blocks.items()}
    assert found["flatten"] == (25088,)
    assert len([layer for layer in net.layers.values() if isinstance(layer, Conv2d | Linear)]) == weight_layers


def test_lenet5_layer_by_layer():
    found = shapes(models.lenet5(), (28, 28, 1))
    maps = {"conv1": (28, 28, 6), "pool1": (14, 14, 6), "conv2": (10, 10, 16), "pool2": (5, 5, 16)}
    assert {name: found[name] for name in maps} == maps
    assert [found[name] for name in ("flatten", "fc3", "fc4", "fc5")] == [(400,), (120,), (84,), (10,)]


@pytest.mark.parametrize("name", models.MODELS)
def test_every_model_takes_its_image_and_has_its_classes(name):
    model = models.get(name)
    net = model.build(num_classes=7, in_channels=2)
    assert net.output_shape((model.input_size, model.input_size, 2)) == (7,)
    for scheme in ("he", "glorot", *model.schemes):
        assert model.scheme(scheme)


@pytest.mark.parametrize("name", ["alexnet_mini", "lenet5"])
def test_small_models_run(name):
    model = models.get(name)
    net = model.build()
    x = np.random.default_rng(0).standard_normal((2, model.input_size, model.input_size, model.input_channels))
    logits, cache = net.forward(x.astype(np.float32), train=True, key=Key(0))
    assert logits.shape == (2, 10)
    net.backward(logits, cache, input_gradient=False)
    assert all(np.abs(parameter.grad).max() > 0 for parameter in net.parameters().values())


# --- the list ---------------------------------------------------------------------------------------------------


def test_every_exported_function_is_in_the_list():
    functions = [name for name in models.__all__ if name not in ("MODELS", "Model", "get", "parse")]
    assert sorted(models.MODELS) == sorted(functions)
    for name in functions:
        assert models.get(name).factory is getattr(models, name)
        assert models.get(name).name == name


@pytest.mark.parametrize(
    ("spec", "name", "options"),
    [
        ("alexnet", "alexnet", {}),
        ("alexnet()", "alexnet", {}),
        (" alexnet(groups=1, lrn=False) ", "alexnet", {"groups": 1, "lrn": False}),
        ("lenet5(num_classes=5)", "lenet5", {"num_classes": 5}),
    ],
)
def test_parse(spec, name, options):
    model, found = models.parse(spec)
    assert (model.name, found) == (name, options)


@pytest.mark.parametrize(
    "spec",
    ["", "alexnet(", "alexnet(1)", "alexnet(groups=__import__('os'))", "a.b()", "alexnet(groups=f(1))", "1 + 1"],
)
def test_parse_of_something_else(spec):
    with pytest.raises(ArgumentError) as caught:
        models.parse(spec)
    assert str(caught.value) == f"model: expected a name or a call such as 'alexnet(groups=1)', got {spec!r}"


@pytest.mark.parametrize(
    ("spec", "meant"), [("alexnte", "alexnet"), ("vgg15", "vgg19"), ("lenet(num_classes=3)", "lenet5")]
)
def test_unknown_models(spec, meant):
    with pytest.raises(UnknownNameError, match=f"unknown model '.*': did you mean '{meant}'\\? Known: .*alexnet_mini"):
        models.parse(spec)


def test_unknown_options_and_schemes():
    with pytest.raises(UnknownNameError, match="unknown option of alexnet 'group': did you mean 'groups'"):
        models.get("alexnet").build(group=1)
    with pytest.raises(UnknownNameError, match="unknown init for alexnet 'papper': did you mean 'paper'"):
        models.get("alexnet").scheme("papper")
    with pytest.raises(UnknownNameError, match="unknown init for vgg16 'caffe': Known: he, glorot"):
        models.get("vgg16").scheme("caffe")
