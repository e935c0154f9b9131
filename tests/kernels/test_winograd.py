"""Winograd's convolution computes what im2col computes, within the rounding that it states."""

from __future__ import annotations

import os
from unittest.mock import patch

import numpy as np
import pytest
from helpers import examples, seeds
from hypothesis import given
from hypothesis import strategies as st

from minidl import gradcheck, settings
from minidl.accelerate import num_threads
from minidl.catalogue import LAYERS
from minidl.errors import ArgumentError, UnknownNameError
from minidl.kernels import winograd
from minidl.ops.conv2d import conv2d, conv2d_input_gradient, conv2d_weight_gradient
from minidl.window import Window

PAIRS = [(m, r) for r, tiles in winograd.TILES.items() for m in tiles]


def error(found, expected):
    """The largest difference, relative to the largest output."""
    return np.abs(found - expected).max() / np.abs(expected).max()


def three(x, weight, bias, dy, window, groups, m):
    """y, dx and dweight by Winograd's algorithm."""
    return (
        winograd.conv2d(x, weight, bias, window, groups, m),
        winograd.conv2d_input_gradient(dy, weight, x.shape, window, groups, m),
        winograd.conv2d_weight_gradient(x, dy, window, groups, m),
    )


def references(x, weight, bias, dy, window, groups):
    """The same by the ops' bodies, in float64."""
    x, weight, dy = (a.astype(np.float64) for a in (x, weight, dy))
    return (
        conv2d.reference(x, weight, bias, window, groups),
        conv2d_input_gradient.reference(dy, weight, x.shape, window, groups),
        conv2d_weight_gradient.reference(x, dy, window, groups),
    )


@pytest.mark.parametrize(("m", "r"), PAIRS)
def test_the_matrices_slide_a_filter(m, r, normal):
    At, G, Bt = winograd.matrices(m, r)
    d, g = normal(m + r - 1), normal(r, seed=1)
    np.testing.assert_allclose(At @ ((G @ g) * (Bt @ d)), np.correlate(d, g, "valid"), rtol=1e-10, atol=1e-12)


@st.composite
def geometries(draw):
    m, r = draw(st.sampled_from(PAIRS))
    padding = [tuple(draw(st.integers(0, r - 1)) for _ in range(2)) for _ in range(2)]
    window = Window.of(r, padding=padding)
    H, W = (draw(st.integers(max(1, r - sum(pair)), 11)) for pair in padding)
    return m, window, H, W


@examples(100)
@given(geometries(), st.integers(1, 3), st.sampled_from([(1, 1, 1), (3, 4, 1), (4, 6, 2)]),
       st.sampled_from([1, 4000, 1 << 24]), seeds)  # fmt: skip
def test_conv2d_and_its_gradients(geometry, N, channels, buffer, seed):
    (m, window, H, W), (C, O, groups), draw = geometry, channels, np.random.default_rng(seed)
    r = window.kernel[0]
    x, weight = draw.standard_normal((N, H, W, C)), draw.standard_normal((r, r, C // groups, O))
    bias, dy = draw.standard_normal(O), draw.standard_normal((N, *window.output_size(H, W), O))
    with patch.object(winograd, "BUFFER", buffer), patch.object(winograd, "FILTERS", 0):
        found = three(x, weight, bias, dy, window, groups, m)
    for ours, expected in zip(found, references(x, weight, bias, dy, window, groups), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-10 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize(("m", "r"), PAIRS)
def test_conv2d_stays_within_its_error_bound(m, r):
    for seed, mean in enumerate([0, 1, 3]):
        draw, window = np.random.default_rng(seed), Window.of(r, padding=r // 2)
        x = np.maximum(draw.standard_normal((2, 13, 13, 128)) + mean, 0).astype("f")
        weight = (draw.standard_normal((r, r, 128, 64)) / np.sqrt(64 * r * r)).astype("f")
        size = window.output_size(13, 13)
        bias, dy = np.zeros(64, "f"), draw.standard_normal((2, *size, 64)).astype("f")
        found = three(x, weight, bias, dy, window, 1, m)
        for ours, expected in zip(found, references(x, weight, bias, dy, window, 1), strict=True):
            assert ours.dtype == np.float32
            assert error(ours, expected) <= winograd.ERROR_BOUNDS[m + r - 1]


@pytest.mark.parametrize(
    "shape", [(27, 96, 256, 5, 2), (13, 256, 384, 3, 1), (13, 384, 384, 3, 2), (28, 64, 128, 3, 1)]
)
@pytest.mark.parametrize("mean", [0, 1])
def test_what_is_chosen_for_conv2d_is_exact_enough(shape, mean):
    H, C, O, r, groups = shape
    draw, window = np.random.default_rng(0), Window.of(r, padding=r // 2)
    x = np.maximum(draw.standard_normal((1, H, H, C)) + mean, 0).astype("f")
    weight = (draw.standard_normal((r, r, C // groups, O)) / np.sqrt(r * r * C / groups / 2)).astype("f")
    dy = draw.standard_normal((1, H, H, O)).astype("f")
    assert winograd.tile("auto", x.dtype, window, (H, H), weight.shape, groups)
    found = (
        conv2d(x, weight, None, window, groups),
        conv2d_input_gradient(dy, weight, x.shape, window, groups),
        conv2d_weight_gradient(x, dy, window, groups),
    )
    for ours, expected in zip(found, references(x, weight, None, dy, window, groups), strict=True):
        assert error(ours, expected) <= 5e-5


def test_what_is_chosen_for_conv2d():
    def chosen(window, size, C, O, algorithm="auto", dtype="float32"):
        return winograd.tile(algorithm, np.dtype(dtype), window, size, (*window.kernel, C, O), 1)

    small = Window.of(3, padding=1)
    assert chosen(small, (13, 13), 256, 384) > 1
    assert chosen(small, (13, 13), 3, 64) == 0  # too few channels to pay for the transforms
    assert chosen(small, (13, 13), 256, 384, dtype="float64") == 0  # where digits matter more than time
    assert chosen(small, (13, 13), 256, 384, algorithm="im2col") == 0
    assert chosen(small, (13, 13), 256, 384, algorithm="winograd", dtype="float64") > 1
    for window in Window.of(11, stride=4), Window.of(3, stride=2), Window.of(3, dilation=2), Window.of(1):
        assert chosen(window, (13, 13), 256, 384) == 0


@pytest.mark.parametrize(
    "window", [Window.of(11), Window.of(3, 2), Window.of(3, dilation=2), Window.of((3, 2)), Window.of(3, padding=3)]
)
def test_conv2d_says_what_does_not_fit(window, normal):
    x, weight = normal(1, 12, 12, 2), normal(*window.kernel, 2, 2)
    with settings(conv2d="winograd"), pytest.raises(ArgumentError, match="conv2d='winograd': expected a square kernel"):
        conv2d(x, weight, None, window)


def test_unknown_algorithms():
    message = "setting for conv2d 'winogrd': did you mean 'winograd'"
    with pytest.raises(UnknownNameError, match=message), settings(conv2d="winogrd"):
        pass


@pytest.mark.parametrize("line", ["Conv2d", "Conv2d: same size", "Conv2d: two groups", "Conv2d: a group a channel"])
def test_gradients_by_winograd_are_right(line):
    make, shape = LAYERS[line]
    with settings(conv2d="winograd"):
        report = gradcheck.check(make(), shape)
    assert report.passed, report


def test_conv2d_has_the_same_bits_for_any_number_of_threads(normal):
    window = Window.of(3, padding=1)
    x, weight = normal(4, 13, 13, 64, dtype="float32"), normal(3, 3, 64, 64, dtype="float32")
    bias, dy = normal(64, dtype="float32"), normal(4, 13, 13, 64, seed=1, dtype="float32")
    results = []
    for threads in 1, 2, 3:
        with patch.dict(os.environ, MINIDL_NUM_THREADS=str(threads)):
            assert num_threads() == threads
            results.append(three(x, weight, bias, dy, window, 1, 4))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
