"""Dropout on the CPU: mask and product in one pass.

One version. Median gain over the body, float32, batch 128, two threads
(benchmarks/results/kernels_cpu.md): 2.6× before fc7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from minidl.arrays import Array
from minidl.kernels.compiled import compiled
from minidl.kernels.threads import split

if TYPE_CHECKING:
    from minidl.random import Key

Word: TypeAlias = np.uint64

GRAIN = 1 << 14  # numbers that are worth a thread: a random one for each


def dropout(x: Array, p: float, key: Key) -> Array:
    """See `minidl.ops.dropout`: bit for bit the same mask."""
    y = np.empty_like(x)
    samples = (len(x), x.size // max(1, len(x)))
    scale, drop = x.dtype.type(1 / (1 - p)), np.uint64(int(p * 2**32))
    words = np.array((*key.words, key.sample), np.uint64)
    split(len(x), _dropout, x.reshape(samples), y.reshape(samples), drop, scale, words, grain=GRAIN)
    return y


@compiled
def _dropout(x: Array, y: Array, drop: Word, scale: float, key: Array, start: int, stop: int) -> None:
    size, zero = x.shape[1], x.dtype.type(0)
    for n in range(start, stop):
        seen, out = x[n], y[n]
        for block in range((size + 3) // 4):
            words = _philox(np.uint64(block), key[2] + np.uint64(n), key[0], key[1])
            for j in range(min(4, size - 4 * block)):
                e = np.uintp(4 * block + j)
                out[e] = seen[e] * scale if words[j] >= drop else zero


@compiled
def _philox(block: Word, sample: Word, k0: Word, k1: Word) -> tuple[Word, Word, Word, Word]:
    """See `minidl.random.philox`, of the counter (block low, block high, sample, 0)."""
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    c0, c1, c2, c3 = block & mask, block >> half, sample, np.uint64(0)
    for _ in range(10):
        product0, product1 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1 = (product1 >> half) ^ c1 ^ k0, product1 & mask
        c2, c3 = (product0 >> half) ^ c3 ^ k1, product0 & mask
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & mask, (k1 + np.uint64(0xBB67AE85)) & mask
    return c0, c1, c2, c3
