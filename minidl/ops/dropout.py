"""Dropout with a mask that is drawn from a counter, so that it need not be kept."""

from __future__ import annotations

import math

from minidl.accelerate import accelerated
from minidl.arrays import Array, array_module
from minidl.random import Key, philox


@accelerated
def dropout(x: Array, p: float, key: Key) -> Array:
    """y = x · mask / (1 − p): forward on x, backward on dy, with the same key.

    x (N, …) → y (N, …), of the same mean. For the mask see `dropout_mask`.
    """
    mask = dropout_mask(x, p, key)
    scale = x.dtype.type(1 / (1 - p))
    y: Array = array_module(x).where(mask, x * scale, x.dtype.type(0))
    return y


def dropout_mask(x: Array, p: float, key: Key) -> Array:
    """True where x is kept: each element with probability 1 − p.

    Element e of sample n draws word e mod 4 of philox((⌊e/4⌋ low, ⌊e/4⌋ high, key.sample + n, 0), key), and is dropped
    where word < ⌊p·2³²⌋: an integer comparison, the same on every device.
    """
    xp = array_module(x)
    N, size = x.shape[0], math.prod(x.shape[1:])
    block = xp.arange(-(-size // 4), dtype=xp.uint64)
    sample = xp.arange(key.sample, key.sample + N, dtype=xp.uint64)[:, None]
    words = philox((block & 0xFFFFFFFF, block >> 32, sample, 0), key.words)
    drawn = xp.stack(words, axis=-1).reshape(N, 4 * len(block))[:, :size]
    mask: Array = (drawn >= int(p * 2**32)).reshape(x.shape)
    return mask
