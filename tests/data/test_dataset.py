from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minidl.data import ArraySplit, FileSplit, stratified_split
from minidl.errors import ArgumentError, DTypeError, LabelError, ShapeError
from minidl.random import Key


def test_array_split(noise):
    images = noise(3, 4, 5, 1)
    split = ArraySplit(images, [2, 0, 1], "digits test")
    assert len(split) == 3
    assert split.labels.dtype == np.int64
    assert split.name(2) == "digits test #2"
    np.testing.assert_array_equal(split.image(1), images[1])


def test_array_split_refuses_what_is_no_images():
    with pytest.raises(DTypeError, match="images: expected uint8 from 0 to 255, got float64"):
        ArraySplit(np.zeros((2, 4, 4, 1)), [0, 1])
    with pytest.raises(ShapeError, match=r"expected \(3, height, width, channels\).* got \(2, 4, 4, 1\)"):
        ArraySplit(np.zeros((2, 4, 4, 1), np.uint8), [0, 1, 2])
    with pytest.raises(ShapeError, match=r"got \(2, 4, 4\)"):
        ArraySplit(np.zeros((2, 4, 4), np.uint8), [0, 1])
    with pytest.raises(ArgumentError, match=r"channels: .* got 2"):
        ArraySplit(np.zeros((2, 4, 4, 2), np.uint8), [0, 1])


def test_labels_are_whole_numbers_in_a_row():
    with pytest.raises(LabelError, match="labels: expected integers, got float64"):
        ArraySplit(np.zeros((2, 4, 4, 1), np.uint8), [0.5, 1.0])
    with pytest.raises(ShapeError, match=r"labels: .* got \(1, 2\)"):
        ArraySplit(np.zeros((2, 4, 4, 1), np.uint8), [[0, 1]])


def test_file_split_needs_a_label_for_each_path():
    with pytest.raises(ShapeError, match="labels: expected 2, one for each path, got 1"):
        FileSplit([Path("a.png"), Path("b.png")], [0])


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


def test_stratified_split_must_leave_something_to_train_on():
    with pytest.raises(ArgumentError, match="one_in: expected at least 2, got 1"):
        stratified_split(np.zeros(4, np.int64), one_in=1, key=Key(0))
