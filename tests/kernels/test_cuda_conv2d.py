"""Convolution's CUDA kernels, run on the CPU, against the op's bodies in float64."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from helpers import examples, integers, same, seeds, sliding
from hypothesis import given
from hypothesis import strategies as st

from minidl import settings
from minidl.errors import ArgumentError
from minidl.kernels import cuda, im2col_cuda
from minidl.kernels.geometry import Problem
from minidl.ops.conv2d import col2im, conv2d, conv2d_input_gradient, conv2d_weight_gradient, im2col
from minidl.window import Window

pytest.importorskip("ml_dtypes", exc_type=ImportError)  # gives NumPy bfloat16

REALS = ["float32", "float64", "float16", "bfloat16"]
reals = st.sampled_from(REALS)
chunks = st.sampled_from([1, 3000, 1 << 25])  # bytes: an image at a time, some, all of them


pytestmark = pytest.mark.usefixtures("on_cuda_shim")


def reference(op, *args):
    """What the op's body makes of the arguments in float64, rounded to their dtype."""
    dtype = next(a.dtype for a in args if isinstance(a, np.ndarray))
    wide = (a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in args)
    return op.reference(*wide).astype(dtype)


@examples(60)
@given(sliding(), st.integers(1, 3), st.sampled_from([1, 3, 4, 8]), reals, seeds)
def test_im2col_and_col2im(geometry, N, C, dtype, seed):
    window, H, W = geometry
    x = integers(seed, N, H, W, C, dtype=dtype)
    cols = im2col(x, window)
    same(cols, reference(im2col, x, window))
    dcols = integers(seed + 1, *cols.shape, dtype=dtype)
    dx = col2im(dcols, x.shape, window)
    same(dx, reference(col2im, dcols, x.shape, window))
    assert np.vdot(cols.astype(float), dcols.astype(float)) == np.vdot(x.astype(float), dx.astype(float))


@examples(100)
@given(
    sliding(), st.integers(1, 3), st.sampled_from([(1, 1, 1), (3, 4, 1), (8, 8, 1), (6, 4, 2), (16, 8, 2), (3, 6, 3)]),
    st.booleans(), st.booleans(), reals, chunks, seeds,
)  # fmt: skip
def test_convolution_and_its_gradients(geometry, N, channels, with_bias, relu, dtype, chunk, seed):
    (window, H, W), (C, O, groups) = geometry, channels
    largest = 1 if dtype == "bfloat16" else 2  # so that all sums have digits enough
    x, weight, bias, dy = (
        integers(seed + i, *shape, dtype=dtype, largest=largest)
        for i, shape in enumerate(
            [(N, H, W, C), (*window.kernel, C // groups, O), (O,), (N, *window.output_size(H, W), O)]
        )
    )
    with patch.object(im2col_cuda, "CHUNK", chunk):
        for op, args in [
            (conv2d, (x, weight, bias if with_bias else None, window, groups, relu)),
            (conv2d_input_gradient, (dy, weight, x.shape, window, groups)),
            (conv2d_weight_gradient, (x, dy, window, groups)),
        ]:
            same(op(*args), reference(op, *args))


def test_weights_of_many_channels_fit_into_a_grid(monkeypatch):
    monkeypatch.setattr(cuda._backend, "launch", lambda *_: None)  # after the grid was looked at
    x = np.ones((1, 1, 1, 4096), np.float32)
    assert conv2d_weight_gradient(x, x, Window.of(1)).shape == (1, 1, 4096, 4096)


@pytest.mark.parametrize("dtype", REALS)
def test_real_numbers(dtype, normal):
    window, groups = Window.of(5, padding=2), 2
    x, weight = normal(3, 7, 7, 16), normal(5, 5, 8, 16, seed=1)
    bias, dy = normal(16, seed=2), normal(3, 7, 7, 16, seed=3)
    x, weight, bias, dy = (a.astype(dtype) for a in (x, weight, bias, dy))
    eps = 2.0**-8 if dtype == "bfloat16" else np.finfo(dtype).eps
    with patch.object(im2col_cuda, "CHUNK", 1):
        for op, args in [
            (conv2d, (x, weight, bias, window, groups)),
            (conv2d_input_gradient, (dy, weight, x.shape, window, groups)),
            (conv2d_weight_gradient, (x, dy, window, groups)),
        ]:
            y, expected = op(*args).astype(float), reference(op, *args).astype(float)
            assert np.abs(y - expected).max() <= 4 * eps * np.abs(expected).max()


def test_chunks_are_summed_in_float32():
    x, dy = np.ones((260, 1, 1, 1), "bfloat16"), np.ones((260, 1, 1, 1), "bfloat16")
    with patch.object(im2col_cuda, "CHUNK", 1):
        assert conv2d_weight_gradient(x, dy, Window.of(1, stride=2)).item() == 260  # in bfloat16, 256 + 1 = 256


def test_chunks_are_no_larger_than_they_may():
    problem = Problem((128, 27, 27, 96), (5, 5, 48, 256), Window.of(5, padding=2), groups=2)
    image = 27 * 27 * 25 * 48 * 4
    parts = [range(*images.indices(128)) for images, _ in im2col_cuda._chunks(problem, 4)]
    assert [n for part in parts for n in part] == list(range(128))
    assert max(map(len, parts)) * image <= im2col_cuda.CHUNK < (max(map(len, parts)) + 1) * image


def test_a_window_of_one_pixel_needs_no_columns(normal, monkeypatch):
    monkeypatch.setattr(im2col_cuda, "CUDA", None)  # no kernel of im2col.cu is run
    x, weight, dy, window = normal(2, 3, 5, 4), normal(1, 1, 4, 6), normal(2, 3, 5, 6), Window.of(1)
    np.testing.assert_allclose(conv2d(x, weight, None, window), x @ weight[0, 0])
    np.testing.assert_allclose(conv2d_input_gradient(dy, weight, x.shape, window), dy @ weight[0, 0].T)
    dweight = np.tensordot(x, dy, axes=((0, 1, 2), (0, 1, 2)))
    np.testing.assert_allclose(conv2d_weight_gradient(x, dy, window)[0, 0], dweight)


@pytest.mark.parametrize("groups", [1, 2])
def test_an_empty_batch(groups):
    window = Window.of(3)
    x, weight, dy = np.empty((0, 5, 5, 4)), np.ones((3, 3, 4 // groups, 4)), np.empty((0, 3, 3, 4))
    assert im2col(x, window).shape == (0, 3, 3, 3, 3, 4)
    assert col2im(np.empty((0, 3, 3, 3, 3, 4)), x.shape, window).shape == x.shape
    assert conv2d(x, weight, np.ones(4), window, groups).shape == dy.shape
    assert conv2d_input_gradient(dy, weight, x.shape, window, groups).shape == x.shape
    same(conv2d_weight_gradient(x, dy, window, groups), np.zeros_like(weight))


def test_a_nan_passes_relu():
    x = np.array([np.nan, -1, 2], "float32").reshape(1, 1, 3, 1)
    same(conv2d(x, np.ones((1, 1, 1, 1), "float32"), None, Window.of(1), relu=True), np.maximum(x, 0))


def test_the_algorithm(normal):
    x, weight, window = normal(1, 4, 4, 2), normal(3, 3, 2, 2), Window.of(3)
    with settings(conv2d="im2col"):
        np.testing.assert_allclose(conv2d(x, weight, None, window), conv2d.reference(x, weight, None, window))
    with (
        settings(conv2d="winograd"),
        pytest.raises(ArgumentError, match=r"conv2d='winograd': there is no such kernel for the GPU; take 'auto' or"),
    ):
        conv2d(x, weight, None, window)
