"""What the kernels' tests draw."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from minidl.errors import ShapeError
from minidl.window import Window

dtypes = st.sampled_from(["float32", "float64"])
seeds = st.integers(0, 2**32 - 1)
layouts = st.sampled_from(["C", "F", "strided"])


@st.composite
def sliding(draw: st.DrawFn) -> tuple[Window, int, int]:
    """A window of any geometry, and the height and width of an image that it fits into."""
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    pads = st.tuples(st.integers(0, 2), st.integers(0, 2))
    window = Window.of(
        draw(st.tuples(st.integers(1, 4), st.integers(1, 4))),
        draw(pair),
        draw(st.tuples(pads, pads)),
        draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
        draw(st.sampled_from(["floor", "ceil"])),
    )
    H, W = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    try:
        window.output_size(H, W)
    except ShapeError:
        H, W = H + window.span[0], W + window.span[1]
    return window, H, W


def integers(seed: int, *shape: int, dtype: str = "float64", layout: str = "C", largest: int = 4) -> np.ndarray:
    """Small integers as floats: sums and products of them are exact in any order, and often equal."""
    x = np.random.default_rng(seed).integers(-largest, largest, size=shape, endpoint=True).astype(dtype)
    return laid_out(x, layout)


def laid_out(x: np.ndarray, layout: str) -> np.ndarray:
    """x in another layout of memory."""
    if layout == "strided":
        wide = np.repeat(x, 2, axis=-1)
        return wide[..., ::2]
    return np.asarray(x, order=layout)


def same(a: np.ndarray, b: np.ndarray) -> None:
    """The same dtype, shape and values; a NaN equals a NaN."""
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b, strict=True)
