"""Random numbers from a counter instead of a hidden state.

A counter-based generator is a plain function: the same key and the same counter give the same bits, on any
machine, in any order, on any number of threads. So a dropout mask can be drawn again in the backward pass instead
of being stored, the CPU and the GPU draw the same mask, and a resumed training continues exactly.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minidl.errors import ArgumentError

_MASK = 0xFFFFFFFF


def philox(counter: tuple[Any, Any, Any, Any], key: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
    """Philox4x32-10: four random 32-bit words from a counter of four and a key of two words.

    Ten rounds of (with hi and lo the halves of a 64-bit product, c the counter and k the key)

        c ← (hi(M₁c₂) ⊕ c₁ ⊕ k₀,  lo(M₁c₂),  hi(M₀c₀) ⊕ c₃ ⊕ k₁,  lo(M₀c₀)),    k ← k + (W₀, W₁)

    The words are Python integers, or uint64 arrays that hold 32-bit values and broadcast together.

    >>> [hex(word) for word in philox((0, 0, 0, 0), (0, 0))]  # Random123's known answer
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']

    Source: Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3".
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (
            (product1 >> 32) ^ c1 ^ k0,
            product1 & _MASK,
            (product0 >> 32) ^ c3 ^ k1,
            product0 & _MASK,
        )
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return c0, c1, c2, c3


@dataclass(frozen=True)
class Key:
    """A frozen source of randomness: 64 bits, from which others are derived by name or number.

    >>> step = Key(seed=7).at(120)           # the key of training step 120
    >>> step.at("fc6") == Key(7).at(120).at("fc6")
    True
    >>> step.at("fc6") == step.at("fc7")
    False

    `sample` is the number of the first sample that a batch holds, for a batch that is one part of a larger one:
    its samples then draw what they would have drawn in the whole.

    Raises: ArgumentError for a seed outside 0 … 2⁶⁴−1 or a sample outside 0 … 2³²−1.
    """

    seed: int = 0
    sample: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.seed, int) or not 0 <= self.seed < 1 << 64:
            raise ArgumentError(f"seed: expected an integer from 0 to 2**64 - 1, got {self.seed!r}")
        if not isinstance(self.sample, int) or not 0 <= self.sample < 1 << 32:
            raise ArgumentError(f"sample: expected an integer from 0 to 2**32 - 1, got {self.sample!r}")

    @property
    def words(self) -> tuple[int, int]:
        """The key as Philox takes it: two 32-bit words, the low one first."""
        return self.seed & _MASK, self.seed >> 32

    def at(self, place: str | int) -> Key:
        """The key that belongs to a place, such as a layer's name or a step's number."""
        if isinstance(place, str):
            number, kind = (
                int.from_bytes(hashlib.blake2b(place.encode(), digest_size=8).digest(), "little"),
                1,
            )
        else:
            number, kind = place, 0
        low, high, _, _ = philox((number & _MASK, number >> 32 & _MASK, kind, 0), self.words)
        return replace(self, seed=low | high << 32)

    def generator(self) -> np.random.Generator:
        """A NumPy generator for what is drawn on the host: initial weights, data order, augmentation."""
        return np.random.Generator(np.random.Philox(key=self.seed))
