"""Corners of single ops: ties, NaN and infinities, extreme numbers, many numbers."""

from __future__ import annotations

import numpy as np
import pytest

from minidl.ops.channel_sum import channel_dot, channel_sum
from minidl.ops.conv2d import conv2d, conv2d_input_gradient, conv2d_weight_gradient
from minidl.ops.max_pool2d import max_pool2d, max_pool2d_gradient, winner_dtype
from minidl.ops.relu import relu, relu_gradient
from minidl.ops.softmax import log_softmax, softmax
from minidl.window import Window


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_in_max_pool2d_a_nan_wins_and_the_first_of_several(kernels, dtype):
    x = np.array([[1, 9, 2], [np.nan, 3, np.nan], [0, np.inf, 5]], dtype).reshape(1, 3, 3, 1)
    y, winners = max_pool2d(x, Window.of(3))
    assert np.isnan(y).all()
    assert winners.item() == 3
    y, winners = max_pool2d(x, Window.of(2))
    np.testing.assert_array_equal(y.reshape(2, 2), np.full((2, 2), np.nan))
    np.testing.assert_array_equal(winners.reshape(2, 2), [[2, 3], [0, 1]])


def test_in_max_pool2d_ties_go_to_the_first_in_row_major_order(kernels):
    x = np.array([[1, 7, 7], [7, 1, 7], [7, 7, 7]], np.float32).reshape(1, 3, 3, 1)
    _, winners = max_pool2d(x, Window.of(3))
    assert winners.item() == 1
    _, winners = max_pool2d(np.zeros((1, 4, 4, 2), np.float32), Window.of(2, 2))
    assert not winners.any()


@pytest.mark.parametrize("value", [-5.0, -np.inf])
def test_in_max_pool2d_padding_never_wins(kernels, value):
    x = np.full((1, 3, 3, 1), value, np.float32)
    window = Window.of(3, stride=2, padding=1, rounding="ceil")
    y, winners = max_pool2d(x, window)
    np.testing.assert_array_equal(y, np.full((1, 2, 2, 1), value))
    # The first tap inside: (1, 1) of the window in the corner, then (1, 0), (0, 1) and (0, 0).
    np.testing.assert_array_equal(winners.reshape(2, 2), [[4, 3], [1, 0]])
    dx = max_pool2d_gradient(np.ones_like(y), winners, x.shape, window)
    assert dx.sum() == 4


def test_max_pool2d_names_the_winners_of_large_windows(kernels, normal):
    assert winner_dtype(Window.of(16)) is np.uint8
    assert winner_dtype(Window.of((1, 257))) is np.uint16
    x = normal(1, 20, 20, 2)
    x[0, 18, 19] = 9
    y, winners = max_pool2d(x, Window.of(20))
    assert winners.dtype == np.uint16
    np.testing.assert_array_equal(winners, np.full((1, 1, 1, 2), 18 * 20 + 19))
    assert max_pool2d_gradient(y, winners, x.shape, Window.of(20))[0, 18, 19].tolist() == [9, 9]


def test_channel_sums_of_float32_lose_no_digits(kernels):
    x = np.full((1 << 20, 1), 0.1, np.float32)
    x[0] = 1e6  # next to it, a float32 sum would round each 0.1 to 0.125
    expected = np.float32(x.astype(np.float64).sum())
    assert channel_sum(x)[0] == expected
    assert channel_dot(x, np.ones_like(x))[0] == expected
    assert channel_sum(x).dtype == np.float32


def test_conv2d_of_an_empty_batch(kernels):
    x, weight, window = np.empty((0, 4, 5, 6), "float32"), np.ones((3, 2, 3, 8), "float32"), Window.of((3, 2))
    y = conv2d(x, weight, None, window, 2)
    assert y.shape == (0, 2, 4, 8)
    assert conv2d_input_gradient(y, weight, x.shape, window, 2).shape == x.shape
    np.testing.assert_array_equal(conv2d_weight_gradient(x, y, window, 2), np.zeros_like(weight))


def test_relu_at_zero_and_of_nan(kernels):
    x = np.array([[-1.0, -0.0, 0.0, 2.0, np.nan, np.inf, -np.inf]])
    y = relu(x)
    np.testing.assert_array_equal(y, [[0, 0, 0, 2, np.nan, np.inf, 0]])
    np.testing.assert_array_equal(relu_gradient(np.full((1, 7), 3.0), y), [[0, 0, 0, 3, 0, 3, 0]])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softmax_is_stable(kernels, dtype):
    x = np.array([[1e4, 0, -1e4], [-1e4, -1e4, -1e4], [1e4, 1e4, -1e4]], dtype)
    np.testing.assert_allclose(softmax(x), [[1, 0, 0], [1 / 3] * 3, [0.5, 0.5, 0]], rtol=1e-6)
    expected = [[0, -1e4, -2e4], [-np.log(3)] * 3, [-np.log(2), -np.log(2), -2e4 - np.log(2)]]
    np.testing.assert_allclose(log_softmax(x), expected, rtol=1e-6, atol=1e-30)
