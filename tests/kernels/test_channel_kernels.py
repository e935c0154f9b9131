from __future__ import annotations

import numpy as np
from helpers import dtypes, integers, laid_out, layouts, same, seeds
from hypothesis import given
from hypothesis import strategies as st

from minidl.ops.batch_norm2d import (
    batch_norm2d,
    batch_norm2d_input_gradient,
    batch_norm2d_parameter_gradients,
    batch_statistics,
)
from minidl.ops.channel_sum import channel_dot, channel_sum
from minidl.ops.dropout import dropout
from minidl.ops.local_response_norm import local_response_norm, local_response_norm_gradient
from minidl.ops.relu import relu_gradient
from minidl.random import Key, philox

shapes = st.lists(st.integers(1, 5), min_size=0, max_size=3).map(tuple)


@given(
    shapes, st.integers(1, 8), st.sampled_from([1, 2, 3]), st.integers(1, 9), st.sampled_from([0.75, 0.5, 1.0]),
    st.sampled_from([1, 2.0]), dtypes, layouts, seeds,
)  # fmt: skip
def test_local_response_norm(shape, channels, groups, size, beta, k, dtype, layout, seed):
    x, dy = np.random.default_rng(seed).normal(size=(2, *shape, channels * groups)).astype(dtype)
    x, dy = laid_out(x, layout), laid_out(dy, layout)
    rtol = 100 * np.finfo(dtype).eps
    for op, arrays in (local_response_norm, (x,)), (local_response_norm_gradient, (dy, x)):
        args = *arrays, size, 0.1, beta, k, groups
        result, expected = op(*args), op.reference(*args)
        assert result.dtype == expected.dtype
        np.testing.assert_allclose(result, expected, rtol=rtol, atol=rtol, strict=True)


def test_the_papers_constants(normal):
    x, dy = normal(2, 9, 9, 96, dtype="float32") * 50, normal(2, 9, 9, 96, seed=1, dtype="float32")
    for op, arrays in (local_response_norm, (x,)), (local_response_norm_gradient, (dy, x)):
        args = *arrays, 5, 1e-4, 0.75, 2
        exact = op.reference(*(a.astype("float64") for a in arrays), 5, 1e-4, 0.75, 2)
        np.testing.assert_allclose(op(*args), exact, rtol=1e-5, atol=1e-5)


@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=4).map(tuple), st.sampled_from([0.0, 0.1, 0.5, 0.999]),
    st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 1000, 2**32 - 10]), dtypes, layouts, seeds,
)  # fmt: skip
def test_dropout_draws_the_same_bits(shape, p, seed, sample, dtype, layout, numbers):
    x = integers(numbers, *shape, dtype=dtype, layout=layout)
    key = Key(seed, sample)
    same(dropout(x, p, key), dropout.reference(x, p, key))


def test_dropout_drops_a_nan():
    x = np.full((8, 100), np.nan, "float32")
    y = dropout(x, 0.5, Key(1))
    same(y, dropout.reference(x, 0.5, Key(1)))
    assert (y == 0).any()


def test_dropout_keeps_a_word_that_equals_the_bound(kernels):
    word = philox((0, 0, 0, 0), Key(1).words)[0]
    assert dropout(np.ones((1, 1)), word / 2**32, Key(1)) > 0
    assert dropout(np.ones((1, 1)), (word + 1) / 2**32, Key(1)) == 0


def test_dropout_of_an_empty_batch():
    assert dropout(np.empty((0, 5)), 0.5, Key(0)).shape == (0, 5)


@given(shapes, st.integers(1, 8), dtypes, layouts, seeds)
def test_relu_gradient(shape, C, dtype, layout, seed):
    dy, y = integers(seed, 2, *shape, C, dtype=dtype)
    y[np.random.default_rng(seed).random(y.shape) < 0.1] = np.nan
    dy, y = laid_out(dy, layout), laid_out(y, layout)
    same(relu_gradient(dy, y), relu_gradient.reference(dy, y))


@given(shapes, st.integers(1, 8), dtypes, layouts, seeds)
def test_channel_sums_of_integers(shape, C, dtype, layout, seed):
    x, y = (integers(seed + i, *shape, C, dtype=dtype, layout=layout) for i in (0, 1))
    same(channel_sum(x), channel_sum.reference(x))
    same(channel_dot(x, y), channel_dot.reference(x, y))


def test_channel_sums_of_many_numbers(normal):
    x, y = normal(5, 40, 31, 7, dtype="float32") + 1, normal(5, 40, 31, 7, seed=1, dtype="float32") + 1
    np.testing.assert_allclose(channel_sum(x), channel_sum.reference(x), rtol=2e-7)
    np.testing.assert_allclose(channel_dot(x, y), channel_dot.reference(x, y), rtol=2e-7)


def test_channel_sums_of_nothing():
    same(channel_sum(np.empty((0, 3, 4), "float32")), np.zeros(4, "float32"))
    same(channel_dot(np.empty((0, 4)), np.empty((0, 4))), np.zeros(4))


@given(st.sampled_from([(2, 1, 1), (1, 5, 3), (2, 31, 37)]), st.integers(1, 9), dtypes, layouts, seeds)
def test_batch_norm2d_has_the_bits_of_its_bodies(shape, C, dtype, layout, seed):
    generator = np.random.default_rng(seed)
    x, dy = (laid_out(a, layout) for a in (5 + generator.normal(size=(2, *shape, C))).astype(dtype))
    gamma, beta, dgamma, dbeta = generator.normal(size=(4, C)).astype(dtype)
    mean, rest, var = batch_statistics(x)
    inv_std = 1 / np.sqrt(var + var.dtype.type(1e-5))
    for op, args in (
        (batch_statistics, (x,)),
        (batch_norm2d, (x, mean, rest, inv_std, gamma, beta)),
        (batch_norm2d_parameter_gradients, (dy, x, mean, rest, inv_std)),
        (batch_norm2d_input_gradient, (dy, x, mean, rest, inv_std, gamma, dgamma, dbeta)),
    ):
        found, expected = op(*args), op.reference(*args)
        for a, b in zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]:
            same(a, b)
