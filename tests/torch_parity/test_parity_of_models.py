"""Every gradient of the full nets against PyTorch, and that of a batch with labels to ignore."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from comparing import assert_gradients_agree, both_dtypes
from kinks import Batch, move_weights_off_kinks
from twin import Twin

from minidl import settings
from minidl.initializers import SCHEMES, constant, initialize
from minidl.layers import Sequential
from minidl.models import MODELS
from minidl.random import Key

KEY = Key(9)
LOSS = {"float32": 1e-5, "float64": 1e-9}
GRADIENT = {"float32": 1e-4, "float64": 1e-9}


@pytest.fixture(autouse=True)
def torch_threads() -> None:
    """All of them, for nets of this size."""


@pytest.fixture(autouse=True, scope="module")
def rounding_of_the_definition() -> Iterator[None]:
    """By im2col: Winograd's rounding is some 30 times as large, and turns the sign of more units over 16 layers."""
    with settings(conv2d="im2col"):
        yield


@pytest.fixture(scope="module", params=["alexnet", "vgg16"])
def net_and_batch(request: pytest.FixtureRequest) -> tuple[Sequential, Batch]:
    """A net in float32, and one image of which no unit lies near a kink.

    In float32 the two sides are up to some 1e-5 apart at the end of VGG-16, so "near" is more than elsewhere.
    """
    model, generator = MODELS[request.param], np.random.default_rng(9)
    net = model.build()
    initialize(net, {**SCHEMES["he"], "*.bias": constant(0.1)}, KEY)
    images = generator.standard_normal((1, model.input_size, model.input_size, 3)).astype(np.float32)
    move_weights_off_kinks(net, images, KEY, near=1e-5)
    return net, (images, generator.integers(0, 1000, 1))


@both_dtypes
def test_every_gradient_of_a_full_net_is_pytorchs(net_and_batch, dtype):
    net, (images, labels) = net_and_batch
    net.to(dtype=dtype)
    batch = images.astype(dtype), labels
    assert_gradients_agree(net, Twin(net), batch, KEY, LOSS[dtype], GRADIENT[dtype])
    net.zero_grad()
