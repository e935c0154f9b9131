"""What several test files share: what they draw, how often, and how they compare."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st

from minidl.arrays import array_module, is_array, to_host
from minidl.window import Window

LAYOUTS = ("C", "Fortran", "strided", "reversed")
dtypes = st.sampled_from(["float32", "float64"])
layouts = st.sampled_from(LAYOUTS)
seeds = st.integers(0, 2**32 - 1)

tally: defaultdict[str, Counter[str]] = defaultdict(Counter)  # title → subject → examples; printed behind a test run


def examples(share: int) -> hypothesis.settings:
    """So many examples of a test, and 25 times as many with HYPOTHESIS_PROFILE=thorough."""
    return hypothesis.settings(max_examples=share * hypothesis.settings.default.max_examples // 100)


@st.composite
def sliding(draw: st.DrawFn) -> tuple[Window, int, int]:
    """A window of any geometry, and the height and width of an image into which it fits."""

    def pair(least: int, most: int) -> tuple[int, int]:
        return draw(st.tuples(st.integers(least, most), st.integers(least, most)))

    kernel, stride, dilation = pair(1, 4), pair(1, 3), pair(1, 2)
    padding, rounding = (pair(0, 2), pair(0, 2)), draw(st.sampled_from(["floor", "ceil"]))
    H, W = (
        max(1, dilation[axis] * (kernel[axis] - 1) + 1 - sum(padding[axis])) + draw(st.integers(0, 5))
        for axis in (0, 1)
    )
    return Window.of(kernel, stride, padding, dilation, rounding), H, W


def integers(seed: int, *shape: int, dtype: str = "float64", layout: str = "C", largest: int = 4) -> np.ndarray:
    """Small integers as floats: sums and products of them are exact in any order, and often equal."""
    x = np.random.default_rng(seed).integers(-largest, largest, size=shape, endpoint=True).astype(dtype)
    return laid_out(x, layout)


def laid_out(a: np.ndarray, layout: str) -> np.ndarray:
    """The same numbers, otherwise arranged in memory."""
    xp = array_module(a)
    if layout == "C":
        return xp.ascontiguousarray(a)
    if layout == "Fortran":
        return xp.asfortranarray(a)
    if layout == "strided":
        wide = xp.full((*a.shape[:-1], 2 * a.shape[-1]), xp.nan, a.dtype)
        wide[..., ::2] = a
        return wide[..., ::2]
    assert layout == "reversed"
    return xp.ascontiguousarray(xp.flip(a))[(slice(None, None, -1),) * a.ndim]


def host(value: Any) -> Any:
    """Arrays as NumPy has them, also those in lists, tuples and dictionaries."""
    if isinstance(value, dict):
        return {name: host(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [host(each) for each in value]
    return to_host(value) if is_array(value) else value


def locked(*arrays: np.ndarray) -> None:
    """Let nobody write into the arrays, where their library can see to that."""
    for array in arrays:
        if isinstance(array, np.ndarray):
            array.flags.writeable = False


def same(a: np.ndarray, b: np.ndarray) -> None:
    """The same dtype, shape and values; a NaN equals a NaN."""
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b, strict=True)
