from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from helpers import dtypes, examples, integers, layouts, same, seeds, sliding
from hypothesis import example, given
from hypothesis import strategies as st

import minidl.kernels.im2col as kernel
from minidl import settings
from minidl.ops.conv2d import col2im, conv2d, conv2d_input_gradient, conv2d_weight_gradient, im2col
from minidl.window import Window


@given(sliding(), st.integers(1, 3), st.integers(1, 5), dtypes, layouts, seeds)
def test_im2col_and_col2im(geometry, N, C, dtype, layout, seed):
    window, H, W = geometry
    x = integers(seed, N, H, W, C, dtype=dtype, layout=layout)
    cols = im2col(x, window)
    same(cols, im2col.reference(x, window))
    dcols = integers(seed + 1, *cols.shape, dtype=dtype, layout=layout)
    same(col2im(dcols, x.shape, window), col2im.reference(dcols, x.shape, window))


@examples(200)
@given(
    sliding(), st.integers(1, 4), st.sampled_from([(1, 1, 1), (3, 4, 1), (4, 6, 2), (6, 3, 3), (4, 4, 4)]),
    st.booleans(), dtypes, layouts, st.sampled_from([1, 500, 3000, 1 << 22]), seeds,
)  # fmt: skip
@example((Window.of(3, 2, 1), 9, 9), 4, (4, 6, 2), True, "float32", "C", 500, 0)
def test_convolution_and_its_gradients(geometry, N, channels, with_bias, dtype, layout, chunk, seed):
    (window, H, W), (C, O, groups) = geometry, channels
    x = integers(seed, N, H, W, C, dtype=dtype, layout=layout)
    weight = integers(seed + 1, *window.kernel, C // groups, O, dtype=dtype, layout=layout)
    bias = integers(seed + 2, O, dtype=dtype) if with_bias else None
    dy = integers(seed + 3, N, *window.output_size(H, W), O, dtype=dtype, layout=layout)
    with patch.object(kernel, "CHUNK", chunk):
        for op, args in [
            (conv2d, (x, weight, bias, window, groups)),
            (conv2d_input_gradient, (dy, weight, x.shape, window, groups)),
            (conv2d_weight_gradient, (x, dy, window, groups)),
        ]:
            same(op(*args), op.reference(*args))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_real_numbers(dtype, normal):
    window, groups = Window.of(5, padding=2), 2
    x, weight = normal(5, 13, 13, 32, dtype=dtype), normal(5, 5, 16, 24, seed=1, dtype=dtype)
    bias, dy = normal(24, seed=2, dtype=dtype), normal(5, 13, 13, 24, seed=3, dtype=dtype)
    tolerance = 50 * np.finfo(dtype).eps
    with settings(conv2d="im2col"), patch.object(kernel, "CHUNK", 1 << 17):
        for op, args in [
            (conv2d, (x, weight, bias, window, groups)),
            (conv2d_input_gradient, (dy, weight, x.shape, window, groups)),
            (conv2d_weight_gradient, (x, dy, window, groups)),
        ]:
            expected = op.reference(*args)
            assert np.abs(op(*args) - expected).max() <= tolerance * np.abs(expected).max()


def test_an_empty_batch():
    window = Window.of(3)
    x, weight, dy = np.empty((0, 5, 5, 2)), np.ones((3, 3, 2, 4)), np.empty((0, 3, 3, 4))
    assert im2col(x, window).shape == (0, 3, 3, 3, 3, 2)
    assert col2im(np.empty((0, 3, 3, 3, 3, 2)), x.shape, window).shape == x.shape
    assert conv2d(x, weight, np.ones(4), window).shape == dy.shape
    assert conv2d_input_gradient(dy, weight, x.shape, window).shape == x.shape
    same(conv2d_weight_gradient(x, dy, window), np.zeros_like(weight))


def test_inputs_are_left_alone(normal):
    window = Window.of(3, padding=1)
    arrays = normal(2, 6, 6, 4), normal(3, 3, 4, 4), normal(4), normal(2, 6, 6, 4)
    for a in arrays:
        a.flags.writeable = False  # as arrays from a memory-mapped file are
    x, weight, bias, dy = arrays
    conv2d(x, weight, bias, window)
    conv2d_input_gradient(dy, weight, x.shape, window)
    conv2d_weight_gradient(x, dy, window)
