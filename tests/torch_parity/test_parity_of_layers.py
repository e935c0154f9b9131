"""Every layer and combiner against PyTorch: y, dx, the gradients of all parameters, the buffers, and inference.

A new layer takes a case in `twin.py` that says it in PyTorch's words, and a line in `LAYERS` that draws one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from comparing import TITLE, assert_close
from helpers import dtypes, examples, seeds, sliding, tally
from hypothesis import given
from hypothesis import strategies as st
from twin import Twin, channels_first, channels_last, from_torch_weight

import minidl
from minidl import layers
from minidl.errors import ShapeError
from minidl.layers import (
    AvgPool2d,
    BatchNorm2d,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    Layer,
    Linear,
    LocalResponseNorm,
    LogSoftmax,
    MaxPool2d,
    ReLU,
    Sequential,
    Sigmoid,
    Softmax,
    Sum,
    Tanh,
)
from minidl.random import Key
from minidl.window import Window

# --- what is drawn: a layer, and the shape of its input ----------------------------------------------------------

Case = tuple[Layer, tuple[int, ...]]

few, some = st.integers(1, 3), st.integers(1, 9)
rows, images = st.tuples(few, some), st.tuples(few, st.integers(1, 5), st.integers(1, 5), some)


def built(kind: type[Layer], window: Window | None = None, **arguments) -> Layer:
    """A layer that holds what it was asked for. (Its twin reads its attributes, so it would copy a mistake.)"""
    geometry = {name.replace("kernel", "kernel_size"): value for name, value in vars(window).items()} if window else {}
    layer = kind(**geometry, **arguments)
    assert layer.window == window
    for name, value in arguments.items():
        stored = getattr(layer, name)
        assert (stored is not None if name == "bias" else stored) == value, name
    return layer


@st.composite
def convolutions(draw: st.DrawFn) -> Case:
    window, H, W = draw(sliding())
    groups, bias = draw(few), draw(st.booleans())
    C, O = groups * draw(few), groups * draw(few)
    layer = built(Conv2d, window, in_channels=C, out_channels=O, groups=groups, bias=bias)
    return layer, (draw(few), H, W, C)


@st.composite
def pools(draw: st.DrawFn, kind: type[Layer], **more: st.SearchStrategy) -> Case:
    window, H, W = draw(sliding())
    if draw(st.booleans()):  # the padding of one side on both, and no more than PyTorch allows
        symmetric = tuple(
            (min(before, k // 2),) * 2 for (before, _), k in zip(window.padding, window.kernel, strict=True)
        )
        H, W = H + sum(window.padding[0]), W + sum(window.padding[1])  # so that the window fits still
        window = replace(window, padding=symmetric)
    layer = built(kind, window, **{name: draw(values) for name, values in more.items()})
    return layer, (draw(few), H, W, draw(few))


def sees_the_image(case: Case) -> bool:
    """Whether no window lies on padding alone, which a pool refuses."""
    layer, (_, *shape) = case
    try:
        layer.output_shape(tuple(shape))
    except ShapeError:
        return False
    return True


@st.composite
def linears(draw: st.DrawFn) -> Case:
    layer = built(Linear, in_features=draw(some), out_features=draw(some), bias=draw(st.booleans()))
    return layer, (draw(few), layer.in_features)


@st.composite
def normalisations(draw: st.DrawFn) -> Case:
    """At constants for which every term of the gradient counts."""
    groups = draw(few)
    layer = built(
        LocalResponseNorm,
        size=draw(some),
        alpha=draw(st.floats(0.1, 2)),
        beta=draw(st.floats(0.3, 1.5)),
        k=draw(st.floats(0.5, 2)),
        average=draw(st.booleans()),
        groups=groups,
    )
    N, *space, C = draw(rows | images)
    return layer, (N, *space, groups * C)


@st.composite
def batch_normalisations(draw: st.DrawFn) -> Case:
    C, momentum = draw(few), draw(st.floats(0.05, 1))
    layer = built(BatchNorm2d, num_features=C, eps=draw(st.sampled_from([1e-5, 0.3])), momentum=momentum)
    return layer, (draw(st.integers(2, 3)), draw(st.integers(2, 5)), draw(st.integers(2, 5)), C)


dropouts = st.builds(
    lambda p, shape: (built(Dropout, p=p), shape), st.sampled_from([0.0, 0.2, 0.5, 0.9]), rows | images
)


def plain(kind: type[Layer], shapes: st.SearchStrategy) -> st.SearchStrategy[Case]:
    return shapes.map(lambda shape: (kind(), shape))


# Containers hold layers that keep height and width. They are smooth, as rounding may not decide on which side of a
# kink a unit lies.


@st.composite
def chains(draw: st.DrawFn, C: int, depth: int = 1) -> Sequential:
    chain: list[Layer] = []
    for _ in range(draw(st.integers(0, 3))):
        chain.append(draw(links(C, depth)))
        C = channels(chain[-1], C)
    return Sequential(*chain)


def links(C: int, depth: int) -> st.SearchStrategy[Layer]:
    shared = Conv2d(C, C, kernel_size=3, padding=1)
    single = st.sampled_from(
        [
            Tanh(),
            Sigmoid(),
            Dropout(0.3),
            LocalResponseNorm(3, 0.5, 0.75, 0.7),
            Conv2d(C, 2, kernel_size=1),
            Sequential(shared, Tanh(), shared),
        ]
    )
    return single | sums(C, depth - 1) | concats(C, depth - 1) if depth else single


def sums(C: int, depth: int = 1) -> st.SearchStrategy[Sum]:
    def alike(branch: Sequential) -> Sequential:
        return Sequential(body=branch, last=Conv2d(channels(branch, C), C, kernel_size=1))

    return (
        st.lists(chains(C, depth) | chains(C, depth).map(alike), min_size=1, max_size=3)
        .filter(lambda branches: len({channels(branch, C) for branch in branches}) == 1)
        .map(lambda branches: Sum(*branches))
    )


def concats(C: int, depth: int = 1) -> st.SearchStrategy[Concat]:
    return st.lists(chains(C, depth), min_size=1, max_size=3).map(lambda branches: Concat(*branches))


def channels(layer: Layer, C: int) -> int:
    return layer.output_shape((4, 4, C))[-1]


def of_three_channels(containers: Callable[[int], st.SearchStrategy]) -> st.SearchStrategy[Case]:
    return st.tuples(containers(3), st.tuples(few, st.integers(1, 4), st.integers(1, 4), st.just(3)))


# --- the comparison ---------------------------------------------------------------------------------------------

LAYERS: dict[str, st.SearchStrategy[Case]] = {
    "AvgPool2d": pools(AvgPool2d, count_include_pad=st.booleans()).filter(sees_the_image),
    "BatchNorm2d": batch_normalisations(),
    "Concat": of_three_channels(concats),
    "Conv2d": convolutions(),
    "Dropout": dropouts,
    "Flatten": plain(Flatten, rows | images),
    "GlobalAvgPool2d": plain(GlobalAvgPool2d, images),
    "GlobalMaxPool2d": plain(GlobalMaxPool2d, images),
    "Linear": linears(),
    "LocalResponseNorm": normalisations(),
    "LogSoftmax": plain(LogSoftmax, rows | images),
    "MaxPool2d": pools(MaxPool2d).filter(sees_the_image),
    "ReLU": plain(ReLU, rows | images),
    "Sequential": of_three_channels(chains),
    "Sigmoid": plain(Sigmoid, rows | images),
    "Softmax": plain(Softmax, rows | images),
    "Sum": of_three_channels(sums),
    "Tanh": plain(Tanh, rows | images),
}


def test_every_layer_is_compared():
    exported = {name for name in layers.__all__ if issubclass(getattr(layers, name), Layer)} - {"Layer"}
    assert set(LAYERS) == exported


@pytest.mark.parametrize("kind", LAYERS)
@examples(100)
@given(data=st.data(), dtype=dtypes, ties=st.booleans(), seed=seeds)
def test_a_layer_is_pytorchs(kind, data, dtype, ties, seed):
    layer, shape = data.draw(LAYERS[kind])
    assert type(layer).__name__ == kind
    generator, key = np.random.default_rng(seed), Key(seed)
    scramble(layer, generator, dtype)
    # Small integers tie in pools, and lie on the kink of ReLU.
    x = (generator.integers(-2, 3, shape) if ties else generator.uniform(-2, 2, shape)).astype(dtype)
    dy = generator.standard_normal((len(x), *layer.output_shape(shape[1:]))).astype(dtype)

    theirs, state = in_pytorch(layer, x, dy, key), copy.deepcopy(layer.state_dict())
    for kernels in ("reference", "auto"):
        layer.load_state_dict(state)
        with minidl.settings(kernels=kernels):
            ours = in_minidl(layer, x, dy, key)
        assert ours.keys() == theirs.keys()
        for what in ours:
            assert_close(ours[what], theirs[what], f"{what} by {kernels}")
    tally[TITLE][kind] += 1


def in_minidl(layer: Layer, x: np.ndarray, dy: np.ndarray, key: Key) -> dict[str, np.ndarray]:
    layer.zero_grad()
    y, cache = layer.forward(x, train=True, key=key)
    dx = layer.backward(dy, cache)
    gradients = {f"d{name}": parameter.grad for name, parameter in layer.parameters().items()}
    buffers = {name: buffer.value for name, buffer in layer.buffers().items()}
    return {"y": y, "dx": dx, **gradients, **buffers, "y at inference": layer(x)}


def in_pytorch(layer: Layer, x: np.ndarray, dy: np.ndarray, key: Key) -> dict[str, np.ndarray]:
    twin, image = Twin(layer), channels_first(x).requires_grad_()
    y = twin(image, key)
    y.backward(channels_first(dy))
    dx, inference = channels_last(image.grad), channels_last(twin(image, key, train=False))
    gradients = {f"d{name}": from_torch_weight(parameter.grad) for name, parameter in twin.parameters.items()}
    buffers = {name: buffer.numpy() for name, buffer in twin.buffers.items()}
    return {"y": channels_last(y), "dx": dx, **gradients, **buffers, "y at inference": inference}


def scramble(layer: Layer, generator: np.random.Generator, dtype: str) -> None:
    """Other values than biases of 0, scales of 1 and running statistics of nothing, which would hide mistakes."""
    layer.to(dtype=dtype)
    for parameter in layer.parameters().values():
        fan_in = math.prod(parameter.shape[:-1])
        parameter.value = (generator.uniform(-1, 1, parameter.shape) / math.sqrt(fan_in)).astype(dtype)
    for buffer in layer.buffers().values():
        buffer.value = generator.uniform(0.5, 2, buffer.value.shape).astype(dtype)
