from __future__ import annotations

import numpy as np
import pytest

from minidl.random import Key, philox


# Random123's kat_vectors for philox4x32-10; the last is digits of π.
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_philox_gives_the_known_answers(counter, key, expected):
    words = [int(word, 16) for word in counter.split()]
    low, high = (int(word, 16) for word in key.split())
    assert philox(tuple(words), (low, high)) == tuple(int(word, 16) for word in expected.split())
    arrays = philox(tuple(np.array([word, 0], np.uint64) for word in words), (low, high))
    assert [f"{int(word[0]):08x}" for word in arrays] == expected.split()
    assert all(word.dtype == np.uint64 for word in arrays)


def test_philox_broadcasts():
    column, row = np.arange(3, dtype=np.uint64)[:, None], np.arange(4, dtype=np.uint64)
    words = philox((row, 0, column, 0), (5, 6))
    for n in range(3):
        for i in range(4):
            assert tuple(int(word[n, i]) for word in words) == philox((i, 0, n, 0), (5, 6))


def test_a_key_is_derived_by_philox():
    low, high, _, _ = philox((3, 2, 0, 0), (7, 1))
    assert Key(7 + (1 << 32)).at(3 + (2 << 32)).seed == low + (high << 32)


def test_keys_differ_by_place_and_seed():
    places = [*range(1000), "conv1", "conv2", "drop6", "drop7", "0", "1", ""]
    assert len({Key(seed).at(place) for seed in (0, 1) for place in places}) == 2 * len(places)
    assert Key(0).at("a").at("b") != Key(0).at("b").at("a")


def test_key_is_a_value():
    assert Key(3).at("drop6") == Key(3).at("drop6")
    assert hash(Key(3)) == hash(Key(3))
    with pytest.raises(AttributeError):
        Key(3).seed = 4


def test_derived_keys_keep_the_number_of_the_first_sample():
    assert Key(3, sample=64).at(1).at("drop6").sample == 64
    assert Key(3, sample=64).at(1).seed == Key(3).at(1).seed


def test_generator_is_the_keys_own():
    first, again, other = (Key(seed).generator().standard_normal(5) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_largest_seed():
    assert Key((1 << 64) - 1).words == (0xFFFFFFFF, 0xFFFFFFFF)
    assert 0 <= Key((1 << 64) - 1).at(5).seed < 1 << 64
