"""Sums over everything but the channels: bias gradients and the statistics of batch normalisation."""

from __future__ import annotations

import numpy as np

from minidl.accelerate import accelerated
from minidl.arrays import Array


@accelerated
def channel_sum(x: Array) -> Array:
    """total_c = Σ x[…, c].    x (…, C) → total (C,).

    Summed in float64 and rounded once: a float32 sum of 10⁷ numbers would lose its last digits.
    """
    total: Array = x.sum(axis=tuple(range(x.ndim - 1)), dtype=np.float64).astype(x.dtype)
    return total


@accelerated
def channel_dot(x: Array, y: Array) -> Array:
    """total_c = Σ x[…, c]·y[…, c].    x and y (…, C) → total (C,), summed as in `channel_sum`."""
    total: Array = (x * y).sum(axis=tuple(range(x.ndim - 1)), dtype=np.float64).astype(x.dtype)
    return total
