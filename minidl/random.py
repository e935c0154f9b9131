"""Random numbers from a counter instead of a hidden state.

A counter-based generator is a plain function: the same key and the same counter give the same bits, on any
machine, in any order, on any number of threads. So a dropout mask can be drawn again in the backward pass instead
of being stored, the CPU and the GPU draw the same mask, and a resumed training continues exactly.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np

from minidl.errors import ArgumentError, told

_MASK = 0xFFFFFFFF


def philox(counter: tuple[Any, Any, Any, Any], key: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
    """Philox4x32-10: four random 32-bit words from a counter of four and a key of two words.

    Ten rounds of (with hi and lo the halves of a 64-bit product, c the counter and k the key)

        c ← (hi(M₁c₂) ⊕ c₁ ⊕ k₀,  lo(M₁c₂),  hi(M₀c₀) ⊕ c₃ ⊕ k₁,  lo(M₀c₀)),    k ← k + (W₀, W₁)

    The words are Python integers, or uint64 arrays that hold 32-bit values and broadcast together.

    >>> [hex(word) for word in philox((0, 0, 0, 0), (0, 0))]  # Random123's known answer
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']

    Raises: ArgumentError for another number of words, or others.
    Source: Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3".
    """
    c0, c1, c2, c3 = _words("counter", counter, 4)
    k0, k1 = _words("key", key, 2)
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
        object.__setattr__(self, "seed", _below_power("seed", self.seed, 64))
        object.__setattr__(self, "sample", _below_power("sample", self.sample, 32))

    @property
    def words(self) -> tuple[int, int]:
        """The key as Philox takes it: two 32-bit words, the low one first."""
        return self.seed & _MASK, self.seed >> 32

    def at(self, place: str | int) -> Key:
        """The key that belongs to a place, such as a layer's name or a step's number.

        Raises: ArgumentError for a place that is neither a text nor an integer from 0 to 2⁶⁴−1.
        """
        if isinstance(place, str):
            number, kind = (
                int.from_bytes(hashlib.blake2b(place.encode(), digest_size=8).digest(), "little"),
                1,
            )
        else:
            number, kind = _below_power("place", place, 64), 0
        low, high, _, _ = philox((number & _MASK, number >> 32 & _MASK, kind, 0), self.words)
        return replace(self, seed=low | high << 32)

    def generator(self) -> np.random.Generator:
        """A NumPy generator for what is drawn on the host: initial weights, data order, augmentation."""
        return np.random.Generator(np.random.Philox(key=self.seed))


def _below_power(name: str, value: Any, bits: int) -> int:
    """A Python integer, where the argument is an integer of so many bits: one of NumPy's would overflow."""
    if isinstance(value, int | Integral) and not isinstance(value, bool) and 0 <= int(value) < 1 << bits:
        return int(value)
    raise ArgumentError(f"{name}: expected an integer from 0 to 2**{bits} - 1, got {told(value)}")


def _words(name: str, words: Any, count: int) -> tuple[Any, ...]:
    """So many words, each an integer of 32 bits or an array of uint64."""
    if not isinstance(words, tuple) or len(words) != count:
        raise ArgumentError(f"{name}: expected a tuple of {count} words, got {told(words)}")
    for word in words:
        if getattr(word, "dtype", None) != "uint64":
            _below_power(name, word, 32)
    return words
