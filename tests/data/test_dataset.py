from __future__ import annotations

import numpy as np

from minidl.data import ArraySplit, stratified_split
from minidl.random import Key


def test_array_split(noise):
    images = noise(3, 4, 5, 1)
    split = ArraySplit(images, [2, 0, 1], "digits test")
    assert len(split) == 3
    assert split.labels.dtype == np.int64
    assert split.name(2) == "digits test #2"
    np.testing.assert_array_equal(split.image(1), images[1])


def test_stratified_split_takes_its_share_of_every_class():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 3, 4], [100, 13, 4, 2, 1]))
    train, test = stratified_split(labels, one_in=5, key=Key(0))
    np.testing.assert_array_equal(np.bincount(labels[test], minlength=5), [20, 3, 1, 1, 0])
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(120))
    assert (np.diff(train) > 0).all()
    assert (np.diff(test) > 0).all()


def test_stratified_split_follows_from_the_key():
    labels = np.repeat([0, 1], 50)
    once, again, other = (stratified_split(labels, key=Key(seed))[1] for seed in (1, 1, 2))
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)
    assert not np.array_equal(once[:10] + 50, once[10:])  # each class draws for itself
