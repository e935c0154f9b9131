"""Winograd's convolution computes what im2col computes, within the rounding that it states."""

from __future__ import annotations

import os
import subprocess
import sys
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
from minidl.kernels.geometry import Problem
from minidl.kernels.toom_cook import matrices
from minidl.ops.conv2d import conv2d, conv2d_input_gradient, conv2d_weight_gradient
from minidl.window import Window

PAIRS = [(m, r) for r, tiles in winograd.TILES.items() for m in tiles]


def error(found, expected):
    """The largest difference, relative to the largest output."""
    return np.abs(found - expected).max() / np.abs(expected).max()


def three(x, weight, bias, dy, window, groups, m):
    """y, dx and dweight by Winograd's algorithm."""
    problem = Problem(x.shape, weight.shape, window, groups)
    return (
        winograd.conv2d(x, weight, bias, problem, m),
        winograd.conv2d_input_gradient(dy, weight, problem, m),
        winograd.conv2d_weight_gradient(x, dy, problem, m),
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
    At, G, Bt = matrices(m, r)
    d, g = normal(m + r - 1), normal(r, seed=1)
    np.testing.assert_allclose(At @ ((G @ g) * (Bt @ d)), np.correlate(d, g, "valid"), rtol=1e-10, atol=1e-12)


@st.composite
def geometries(draw):
    m, r = draw(st.sampled_from(PAIRS))
    stride = draw(st.integers(1, 3))
    K = draw(st.integers(max(stride, (r - 1) * stride + 1), r * stride))  # which is r strides
    padding = [tuple(draw(st.integers(0, K - 1)) for _ in range(2)) for _ in range(2)]
    window = Window.of(K, stride, padding, rounding=draw(st.sampled_from(["floor", "ceil"])))
    H, W = (draw(st.integers(max(1, K - sum(pair)), K + 9)) for pair in padding)
    return m, window, H, W


@examples(100)
@given(geometries(), st.integers(1, 3), st.sampled_from([(1, 1, 1), (3, 4, 1), (4, 6, 2)]),
       st.sampled_from([1, 4000, 1 << 24]), seeds)  # fmt: skip
def test_conv2d_and_its_gradients(geometry, N, channels, buffer, seed):
    (m, window, H, W), (C, O, groups), draw = geometry, channels, np.random.default_rng(seed)
    groups = 1 if window.stride != (1, 1) else groups
    x, weight = draw.standard_normal((N, H, W, C)), draw.standard_normal((*window.kernel, C // groups, O))
    bias, dy = draw.standard_normal(O), draw.standard_normal((N, *window.output_size(H, W), O))
    with patch.object(winograd, "BUFFER", buffer):
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
    ("size", "channels", "window", "groups"),
    [
        (227, (3, 96), Window.of(11, stride=4), 1),
        (27, (96, 256), Window.of(5, padding=2), 2),
        (13, (256, 384), Window.of(3, padding=1), 1),
        (13, (384, 384), Window.of(3, padding=1), 2),
        (28, (64, 128), Window.of(3, padding=1), 1),
    ],
)
@pytest.mark.parametrize("mean", [0, 1])
def test_what_is_chosen_for_conv2d_is_exact_enough(size, channels, window, groups, mean):
    (C, O), K, draw = channels, window.kernel[0], np.random.default_rng(0)
    x = np.maximum(draw.standard_normal((8, size, size, C)) + mean, 0).astype("f")
    weight = (draw.standard_normal((K, K, C // groups, O)) / np.sqrt(K * K * C / groups / 2)).astype("f")
    problem = Problem(x.shape, weight.shape, window, groups)
    dy = draw.standard_normal(problem.y_shape).astype("f")
    assert winograd.tile("auto", problem, x.dtype)
    found = (
        conv2d(x, weight, None, window, groups),
        conv2d_input_gradient(dy, weight, x.shape, window, groups),
        conv2d_weight_gradient(x, dy, window, groups),
    )
    for ours, expected in zip(found, references(x, weight, None, dy, window, groups), strict=True):
        assert error(ours, expected) <= 5e-5


def test_what_is_chosen_for_conv2d():
    def chosen(window, C, O, algorithm="auto", dtype="float32", images=16, size=13):
        problem = Problem((images, size, size, C), (*window.kernel, C, O), window, 1)
        return winograd.tile(algorithm, problem, np.dtype(dtype))

    small = Window.of(3, padding=1)
    assert chosen(small, 256, 384) > 1
    assert chosen(small, 3, 16) == 0  # too few channels to pay for the transforms
    assert chosen(small, 256, 384, images=1) == 0  # too few tiles to pay for that of the filters
    assert chosen(small, 256, 384, dtype="float64") == 0  # where digits matter more than time
    assert chosen(small, 256, 384, algorithm="im2col") == 0
    assert chosen(small, 256, 384, algorithm="winograd", dtype="float64") > 1
    assert chosen(Window.of(11, stride=4), 3, 96, size=227) > 1
    for window in Window.of(3, stride=2), Window.of(3, dilation=2), Window.of(1):
        assert chosen(window, 256, 384) == 0


FITS = [
    (Window.of(11), 1, "expected a square kernel of at most 5 strides"),
    (Window.of((3, 2)), 1, "expected a square kernel of at most 5 strides"),
    (Window.of(4, stride=(1, 2)), 1, "expected a square kernel of at most 5 strides"),
    (Window.of(3, dilation=2), 1, "expected dilation 1"),
    (Window.of(3, padding=3), 1, "expected less padding than the kernel"),
    (Window.of(4, stride=2), 2, "expected one group and a kernel of at least a stride"),
    (Window.of(2, stride=3), 1, "expected one group and a kernel of at least a stride"),
]


@pytest.mark.parametrize(("window", "groups", "message"), FITS)
def test_conv2d_says_what_does_not_fit(window, groups, message, normal):
    x, weight = normal(1, 12, 12, 2), normal(*window.kernel, 2 // groups, 2)
    with settings(conv2d="winograd"), pytest.raises(ArgumentError, match=f"conv2d='winograd': {message}, got "):
        conv2d(x, weight, None, window, groups)


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


@pytest.mark.parametrize("images", [1, 16])  # few tiles, and many
@pytest.mark.parametrize("threads", [2, 3])
def test_conv2d_has_the_same_bits_for_the_same_number_of_threads(images, threads, normal):
    window = Window.of(3, padding=1)
    x, weight = normal(images, 13, 13, 64, dtype="float32"), normal(3, 3, 64, 64, dtype="float32")
    bias, dy = normal(64, dtype="float32"), normal(images, 13, 13, 64, seed=1, dtype="float32")
    with patch.dict(os.environ, MINIDL_NUM_THREADS=str(threads)):
        assert num_threads() == threads
        first, second = (three(x, weight, bias, dy, window, 1, 4) for _ in range(2))
    with patch.dict(os.environ, MINIDL_NUM_THREADS="1"):
        alone = three(x, weight, bias, dy, window, 1, 4)
    for a, b, c in zip(first, second, alone, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, c, rtol=0, atol=2e-5 * np.abs(c).max())


def test_transforms_that_several_processes_have_compiled_work_together(tmp_path):
    script = """
import sys, numpy as np
from minidl.kernels import winograd
from minidl.kernels.geometry import Problem
from minidl.ops.conv2d import conv2d
from minidl.window import Window
random = np.random.default_rng(0)
for m in map(int, sys.argv[1:]):
    x, weight = random.standard_normal((2, 9, 9, 70)), random.standard_normal((3, 3, 70, 70))
    found = winograd.conv2d(x, weight, None, Problem(x.shape, weight.shape, Window.of(3), 1), m)
    print(abs(found - conv2d.reference(x, weight, None, Window.of(3))).max() < 1e-9)
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    for tiles in ["2"], ["4"], ["2", "4"]:
        command = [sys.executable, "-c", script, *tiles]
        assert subprocess.check_output(command, text=True, env=environment).split() == ["True"] * len(tiles)
