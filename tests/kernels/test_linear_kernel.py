"""The fully connected layer's products, whole and cut among threads."""

import numpy as np
import pytest

from minidl.ops.linear import linear, linear_input_gradient, linear_weight_gradient


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("N", "I", "O"), [(1, 1, 1), (3, 5, 7), (2, 3000, 1001), (400, 130, 110), (1, 3001, 1500)])
def test_products_of_integers_are_exact(N, I, O, dtype):
    rng = np.random.default_rng(N + I + O)
    x, weight, dy, bias = (
        rng.integers(-3, 4, shape).astype(dtype) for shape in ((N, I), (I, O), (N, O), (O,))
    )  # fmt: skip
    for op, args in (
        (linear, (x, weight, bias)),
        (linear, (x, weight, None)),
        (linear_input_gradient, (dy, weight)),
        (linear_weight_gradient, (x, dy)),
    ):
        result = op(*args)
        np.testing.assert_array_equal(result, op.reference(*args))
        assert result.dtype == dtype and result.flags.c_contiguous


def test_inputs_of_any_layout():
    rng = np.random.default_rng(0)
    x, weight = (
        np.asfortranarray(rng.integers(-3, 4, (40, 300)).astype(float)),
        rng.integers(-3, 4, (600, 500)).astype(float),
    )
    strided = weight[::2]
    np.testing.assert_array_equal(linear(x, strided, None), x @ strided)
