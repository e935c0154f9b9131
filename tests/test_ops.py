"""The ops' reference bodies against loops written from their equations, and linear ops against their adjoints."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl.ops.adamw import adamw
from minidl.ops.avg_pool2d import avg_pool2d, avg_pool2d_gradient
from minidl.ops.channel_sum import channel_dot, channel_sum
from minidl.ops.conv2d import col2im, conv2d, conv2d_input_gradient, conv2d_weight_gradient, im2col
from minidl.ops.local_response_norm import channel_window_sum, local_response_norm, local_response_norm_gradient
from minidl.ops.max_pool2d import max_pool2d, max_pool2d_gradient, winner_dtype
from minidl.ops.relu import relu, relu_gradient
from minidl.ops.sgd import sgd_paper, sgd_torch
from minidl.ops.softmax import log_softmax, log_softmax_gradient, softmax, softmax_gradient
from minidl.window import Window


@st.composite
def images(draw):
    """A window with any options, the shape (N, H, W, C) of a batch into which it fits, and a generator."""

    def pair(least, most):
        return draw(st.tuples(st.integers(least, most), st.integers(least, most)))

    padding, rounding = (pair(0, 2), pair(0, 2)), draw(st.sampled_from(["floor", "ceil"]))
    window = Window.of(pair(1, 3), pair(1, 3), padding, pair(1, 2), rounding)
    H, W = (max(1, window.span[axis] - sum(padding[axis])) + draw(st.integers(0, 4)) for axis in (0, 1))
    shape = draw(st.integers(1, 2)), H, W, draw(st.integers(1, 3))
    return window, shape, np.random.default_rng(draw(st.integers(0, 2**32 - 1)))


def integers(generator, shape):
    """Small whole numbers in float64, with which sums and products are exact."""
    return generator.integers(-8, 9, shape).astype(np.float64)


def element_seen(window, oh, ow, i, j):
    """Row and column that tap (i, j) of the window at (oh, ow) reads; they may lie outside."""
    (SH, SW), (DH, DW), ((top, _), (left, _)) = window.stride, window.dilation, window.padding
    return oh * SH + i * DH - top, ow * SW + j * DW - left


def seen_by(window, shape):
    """Every (oh, ow), with the (i, j, h, w) of its taps that lie in the image."""
    _, H, W, _ = shape
    KH, KW = window.kernel
    for oh, ow in itertools.product(*map(range, window.output_size(H, W))):
        taps = [(i, j, *element_seen(window, oh, ow, i, j)) for i in range(KH) for j in range(KW)]
        yield oh, ow, [(i, j, h, w) for i, j, h, w in taps if 0 <= h < H and 0 <= w < W]


# --- convolution ------------------------------------------------------------------------------------------------


def naive_im2col(x, window):
    cols = np.zeros((len(x), *window.output_size(*x.shape[1:3]), *window.kernel, x.shape[3]))
    for oh, ow, taps in seen_by(window, x.shape):
        for i, j, h, w in taps:
            cols[:, oh, ow, i, j] = x[:, h, w]
    return cols


def naive_conv2d(x, weight, bias, window, groups):
    channels, O = weight.shape[2:]
    y = np.zeros((len(x), *window.output_size(*x.shape[1:3]), O))
    for n, o in itertools.product(range(len(x)), range(O)):
        first = o // (O // groups) * channels
        for oh, ow, taps in seen_by(window, x.shape):
            y[n, oh, ow, o] = bias[o] + sum(
                weight[i, j, c, o] * x[n, h, w, first + c] for i, j, h, w in taps for c in range(channels)
            )
    return y


@settings(max_examples=200)
@given(images())
def test_im2col_lays_out_what_the_window_sees(case):
    window, shape, generator = case
    x = integers(generator, shape)
    np.testing.assert_array_equal(im2col.reference(x, window), naive_im2col(x, window))


@settings(max_examples=200)
@given(images())
def test_col2im_is_the_adjoint_of_im2col(case):
    window, shape, generator = case
    x = integers(generator, shape)
    columns = im2col.reference(x, window)
    c = integers(generator, columns.shape)
    assert np.sum(columns * c) == np.sum(x * col2im.reference(c, shape, window))


@settings(max_examples=150)
@given(images(), st.integers(1, 2), st.integers(1, 2))
def test_conv2d(case, groups, outputs):
    window, (N, H, W, C), generator = case
    x = integers(generator, (N, H, W, C * groups))
    weight, bias = integers(generator, (*window.kernel, C, outputs * groups)), integers(generator, outputs * groups)
    y = conv2d.reference(x, weight, bias, window, groups)
    np.testing.assert_array_equal(y, naive_conv2d(x, weight, bias, window, groups))
    np.testing.assert_array_equal(y - bias, conv2d.reference(x, weight, None, window, groups))
    # y is linear in x and in weight; both gradients are adjoints of it.
    dy = integers(generator, y.shape)
    product = np.sum(dy * (y - bias))
    assert product == np.sum(x * conv2d_input_gradient.reference(dy, weight, x.shape, window, groups))
    dweight = conv2d_weight_gradient.reference(x, dy, window, groups)
    assert product == np.sum(weight * dweight)
    assert dweight.shape == weight.shape


def test_groups_see_their_own_channels_only(kernels, normal):
    x, weight, window = normal(1, 5, 5, 4), normal(3, 3, 2, 6, seed=1), Window.of(3)
    y = conv2d(x, weight, None, window, 2)
    x[..., 2:] = 0
    np.testing.assert_array_equal(conv2d(x, weight, None, window, 2)[..., :3], y[..., :3])
    assert not conv2d(x, weight, None, window, 2)[..., 3:].any()


# --- pooling ----------------------------------------------------------------------------------------------------


def fits_pooling(case) -> bool:
    window, (_, H, W, _), _ = case
    return all(count for counts in window.tap_counts(H, W) for count in counts)


@settings(max_examples=200)
@given(images().filter(fits_pooling), st.booleans())
def test_max_pool2d(case, negative):
    window, shape, generator = case
    x = -1 - generator.random(shape) if negative else integers(generator, shape)  # the latter with ties
    y, winners = max_pool2d.reference(x, window)
    dy = integers(generator, y.shape)
    dx = np.zeros(shape)
    for oh, ow, taps in seen_by(window, shape):
        for n, c in itertools.product(range(shape[0]), range(shape[3])):
            i, j, h, w = max(taps, key=lambda tap: x[n, tap[2], tap[3], c])  # the first of equals
            assert y[n, oh, ow, c] == x[n, h, w, c]
            assert winners[n, oh, ow, c] == i * window.kernel[1] + j
            dx[n, h, w, c] += dy[n, oh, ow, c]
    np.testing.assert_array_equal(max_pool2d_gradient.reference(dy, winners, shape, window), dx)


@settings(max_examples=200)
@given(images().filter(fits_pooling), st.booleans())
def test_avg_pool2d(case, count_include_pad):
    window, shape, generator = case
    _, H, W, _ = shape
    (top, bottom), (left, right) = window.padding
    x = integers(generator, shape)
    y = avg_pool2d.reference(x, window, count_include_pad)
    dy = integers(generator, y.shape)
    dx = np.zeros(shape)
    for oh, ow, taps in seen_by(window, shape):
        count = len(taps)
        if count_include_pad:
            places = (element_seen(window, oh, ow, *tap) for tap in itertools.product(*map(range, window.kernel)))
            count = sum(-top <= h < H + bottom and -left <= w < W + right for h, w in places)
        expected = sum(x[:, h, w] for _, _, h, w in taps) / count
        np.testing.assert_allclose(y[:, oh, ow], expected, rtol=1e-14, atol=1e-14)
        for _, _, h, w in taps:
            dx[:, h, w] += dy[:, oh, ow] / count
    np.testing.assert_allclose(
        avg_pool2d_gradient.reference(dy, shape, window, count_include_pad), dx, rtol=1e-13, atol=1e-13
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_nan_wins_its_window_and_the_first_of_several(kernels, dtype):
    x = np.array([[1, 9, 2], [np.nan, 3, np.nan], [0, np.inf, 5]], dtype).reshape(1, 3, 3, 1)
    y, winners = max_pool2d(x, Window.of(3))
    assert np.isnan(y).all()
    assert winners.item() == 3
    y, winners = max_pool2d(x, Window.of(2))
    np.testing.assert_array_equal(y.reshape(2, 2), np.full((2, 2), np.nan))
    np.testing.assert_array_equal(winners.reshape(2, 2), [[2, 3], [0, 1]])


def test_ties_go_to_the_first_in_row_major_order(kernels):
    x = np.array([[1, 7, 7], [7, 1, 7], [7, 7, 7]], np.float32).reshape(1, 3, 3, 1)
    _, winners = max_pool2d(x, Window.of(3))
    assert winners.item() == 1
    _, winners = max_pool2d(np.zeros((1, 4, 4, 2), np.float32), Window.of(2, 2))
    assert not winners.any()


@pytest.mark.parametrize("value", [-5.0, -np.inf])
def test_padding_never_wins(kernels, value):
    x = np.full((1, 3, 3, 1), value, np.float32)
    window = Window.of(3, stride=2, padding=1, rounding="ceil")
    y, winners = max_pool2d(x, window)
    np.testing.assert_array_equal(y, np.full((1, 2, 2, 1), value))
    # The first tap inside: (1, 1) of the window in the corner, then (1, 0), (0, 1) and (0, 0).
    np.testing.assert_array_equal(winners.reshape(2, 2), [[4, 3], [1, 0]])
    dx = max_pool2d_gradient(np.ones_like(y), winners, x.shape, window)
    assert dx.sum() == 4


def test_winners_of_large_windows(kernels, normal):
    assert winner_dtype(Window.of(16)) is np.uint8
    assert winner_dtype(Window.of((1, 257))) is np.uint16
    x = normal(1, 20, 20, 2)
    x[0, 18, 19] = 9
    y, winners = max_pool2d(x, Window.of(20))
    assert winners.dtype == np.uint16
    np.testing.assert_array_equal(winners, np.full((1, 1, 1, 2), 18 * 20 + 19))
    assert max_pool2d_gradient(y, winners, x.shape, Window.of(20))[0, 18, 19].tolist() == [9, 9]


# --- local response normalisation -------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 30])
def test_local_response_norm(kernels, normal, size, groups):
    C, beta, k, scale = 12, 0.75, 0.7, 0.5
    x, dy = normal(2, 3, C), normal(2, 3, C, seed=1)
    s, y = np.empty_like(x), np.empty_like(x)
    windows = []
    for i in range(C):
        first = i // (C // groups) * (C // groups)
        inside = range(max(first, i - (size - 1) // 2), min(first + C // groups, i + size // 2 + 1))
        windows.append(inside)
        s[..., i] = k + scale * sum(x[..., j] ** 2 for j in inside)
        y[..., i] = x[..., i] / s[..., i] ** beta
    dx = dy / s**beta
    for j, inside in enumerate(windows):
        for i in inside:  # ∂y_j/∂x_i through s_j
            dx[..., i] -= 2 * beta * scale * x[..., i] * dy[..., j] * x[..., j] * s[..., j] ** (-beta - 1)
    np.testing.assert_allclose(local_response_norm(x, size, scale, beta, k, groups), y, rtol=1e-12)
    np.testing.assert_allclose(
        local_response_norm_gradient(dy, x, size, scale, beta, k, groups), dx, rtol=1e-12, atol=1e-13
    )


@given(st.integers(0, 4), st.integers(0, 4), st.integers(1, 3), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_the_adjoint_of_a_window_sum_is_the_window_turned_around(before, after, groups, channels, seed):
    generator = np.random.default_rng(seed)
    a, b = integers(generator, (2, groups * channels)), integers(generator, (2, groups * channels))
    total = channel_window_sum(a, before, after, groups)
    assert np.sum(total * b) == np.sum(a * channel_window_sum(b, after, before, groups))


# --- the rest ---------------------------------------------------------------------------------------------------


def test_channel_sums(kernels, normal):
    x, y = normal(2, 3, 4, 5), normal(2, 3, 4, 5, seed=1)
    np.testing.assert_allclose(channel_sum(x), [x[..., c].sum() for c in range(5)], rtol=1e-13)
    np.testing.assert_allclose(channel_dot(x, y), [(x[..., c] * y[..., c]).sum() for c in range(5)], rtol=1e-13)


def test_channel_sums_of_float32_lose_no_digits(kernels):
    x = np.full((1 << 20, 1), 0.1, np.float32)
    x[0] = 1e6  # next to it, a float32 sum would round each 0.1 to 0.125
    expected = np.float32(x.astype(np.float64).sum())
    assert channel_sum(x)[0] == expected
    assert channel_dot(x, np.ones_like(x))[0] == expected
    assert channel_sum(x).dtype == np.float32


def test_relu_at_zero_and_of_nan(kernels):
    x = np.array([[-1.0, -0.0, 0.0, 2.0, np.nan, np.inf, -np.inf]])
    y = relu(x)
    np.testing.assert_array_equal(y, [[0, 0, 0, 2, np.nan, np.inf, 0]])
    np.testing.assert_array_equal(relu_gradient(np.full((1, 7), 3.0), y), [[0, 0, 0, 3, 0, 3, 0]])


def test_gradients_of_softmax_by_its_jacobian(kernels, normal):
    x, dy = normal(6), normal(6, seed=1)
    y = softmax(x[None])[0]
    np.testing.assert_allclose(y, np.exp(x) / np.exp(x).sum(), rtol=1e-13)
    jacobian = np.diag(y) - np.outer(y, y)
    np.testing.assert_allclose(softmax_gradient(dy[None], y[None])[0], jacobian.T @ dy, rtol=1e-12)
    log_y = log_softmax(x[None])[0]
    np.testing.assert_allclose(log_y, np.log(y), rtol=1e-13)
    jacobian = np.eye(6) - y  # ∂log y_j/∂x_i = δ_ij − y_i
    np.testing.assert_allclose(log_softmax_gradient(dy[None], log_y[None])[0], jacobian.T @ dy, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softmax_is_stable(kernels, dtype):
    x = np.array([[1e4, 0, -1e4], [-1e4, -1e4, -1e4], [1e4, 1e4, -1e4]], dtype)
    np.testing.assert_allclose(softmax(x), [[1, 0, 0], [1 / 3] * 3, [0.5, 0.5, 0]], rtol=1e-6)
    expected = [[0, -1e4, -2e4], [-np.log(3)] * 3, [-np.log(2), -np.log(2), -2e4 - np.log(2)]]
    np.testing.assert_allclose(log_softmax(x), expected, rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("nesterov", [False, True])
def test_one_step_of_sgd_by_hand(kernels, nesterov):
    # w = 2, g = 0.5, v = 0.3; lr 0.1, momentum 0.9, decay 0.01, so the descent is 0.5 + 0.01·2 = 0.52
    value, grad, velocity = np.array([2.0]), np.array([0.5]), np.array([0.3])
    sgd_paper(value, grad, velocity, 0.1, 0.9, 0.01, nesterov)
    np.testing.assert_allclose(velocity, 0.9 * 0.3 - 0.1 * 0.52, rtol=1e-14)
    np.testing.assert_allclose(value, 2 + (0.9 * 0.218 - 0.052 if nesterov else 0.218), rtol=1e-14)

    value, velocity = np.array([2.0]), np.array([0.3])
    sgd_torch(value, grad, velocity, 0.1, 0.9, 0.01, nesterov)
    np.testing.assert_allclose(velocity, 0.9 * 0.3 + 0.52, rtol=1e-14)
    np.testing.assert_allclose(value, 2 - 0.1 * (0.9 * 0.79 + 0.52 if nesterov else 0.79), rtol=1e-14)
    assert grad.item() == 0.5


def test_one_step_of_adamw_by_hand(kernels):
    value, grad, mean, square = np.array([2.0]), np.array([0.5]), np.array([0.1]), np.array([0.04])
    adamw(value, grad, mean, square, 3, 0.1, 0.9, 0.99, 1e-3, 0.2)
    np.testing.assert_allclose(mean, 0.9 * 0.1 + 0.1 * 0.5, rtol=1e-14)
    np.testing.assert_allclose(square, 0.99 * 0.04 + 0.01 * 0.25, rtol=1e-14)
    unbiased_mean, unbiased_square = 0.14 / (1 - 0.9**3), 0.0421 / (1 - 0.99**3)
    expected = 2 * (1 - 0.1 * 0.2) - 0.1 * unbiased_mean / (np.sqrt(unbiased_square) + 1e-3)
    np.testing.assert_allclose(value, expected, rtol=1e-13)
    assert grad.item() == 0.5
