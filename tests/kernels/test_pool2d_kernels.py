from __future__ import annotations

import numpy as np
import pytest
from helpers import dtypes, examples, integers, laid_out, layouts, same, seeds, sliding
from hypothesis import given
from hypothesis import strategies as st

from minidl.ops.avg_pool2d import avg_pool2d, avg_pool2d_gradient
from minidl.ops.max_pool2d import max_pool2d, max_pool2d_gradient
from minidl.window import Window

specials = st.lists(st.sampled_from([np.nan, -np.inf, np.inf]), max_size=2)


@examples(200)
@given(sliding(), st.integers(1, 3), st.integers(1, 5), dtypes, layouts, specials, seeds)
def test_max_pool2d(geometry, N, C, dtype, layout, special, seed):
    window, H, W = geometry
    x = integers(seed, N, H, W, C, dtype=dtype, largest=2)  # ties everywhere
    for i, value in enumerate(special):
        x[np.random.default_rng(seed + i).random(x.shape) < 0.3] = value
    x = laid_out(x, layout)
    y, winners = max_pool2d(x, window)
    expected, expected_winners = max_pool2d.reference(x, window)
    same(y, expected)
    same(winners, expected_winners)
    dy = integers(seed + 1, *y.shape, dtype=dtype, layout=layout)
    args = dy, winners, x.shape, window
    same(max_pool2d_gradient(*args), max_pool2d_gradient.reference(*args))


def test_max_pool2d_of_minus_infinity_alone():
    x = np.full((1, 4, 4, 3), -np.inf, "float32")
    window = Window.of(3, stride=2, padding=1)
    for mine, expected in zip(max_pool2d(x, window), max_pool2d.reference(x, window), strict=True):
        same(mine, expected)


@pytest.mark.parametrize(("kernel_size", "dtype"), [(1, "uint8"), (16, "uint8"), (17, "uint16")])
def test_winners_are_small_integers(kernel_size, dtype, normal):
    x, window = normal(1, 18, 18, 2), Window.of(kernel_size)
    _, winners = max_pool2d(x, window)
    assert winners.dtype == dtype
    same(winners, max_pool2d.reference(x, window)[1])


def test_a_nan_gradient_reaches_its_winner_only():
    x = np.arange(16.0).reshape(1, 4, 4, 1)
    window = Window.of(2)
    _, winners = max_pool2d(x, window)
    dx = max_pool2d_gradient(np.full((1, 3, 3, 1), np.nan), winners, x.shape, window)
    assert np.isnan(dx).sum() == 9


@examples(200)
@given(sliding(), st.integers(1, 3), st.integers(1, 5), st.booleans(), dtypes, layouts, seeds)
def test_avg_pool2d(geometry, N, C, count_include_pad, dtype, layout, seed):
    window, H, W = geometry
    x = integers(seed, N, H, W, C, dtype=dtype, layout=layout)
    with np.errstate(invalid="ignore"):  # a window that sees padding alone has the mean 0/0
        expected = avg_pool2d.reference(x, window, count_include_pad)
    y = avg_pool2d(x, window, count_include_pad)
    same(y, expected)
    dy = integers(seed + 1, *y.shape, dtype=dtype, layout=layout)
    args = dy, x.shape, window, count_include_pad
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = avg_pool2d_gradient.reference(*args)
    dx = avg_pool2d_gradient(*args)
    assert dx.dtype == expected.dtype
    np.testing.assert_allclose(dx, expected, rtol=8 * np.finfo(dtype).eps, atol=32 * np.finfo(dtype).eps)


def test_an_empty_batch():
    x, window = np.empty((0, 5, 5, 2)), Window.of(3)
    y, winners = max_pool2d(x, window)
    assert y.shape == winners.shape == avg_pool2d(x, window).shape == (0, 3, 3, 2)
    assert max_pool2d_gradient(y, winners, x.shape, window).shape == x.shape
    assert avg_pool2d_gradient(y, x.shape, window).shape == x.shape
