from __future__ import annotations

import numpy as np
import pytest

from minidl.data import load
from minidl.data.make_digits import digits_arrays
from minidl.errors import ArgumentError, DataError, UnknownNameError


def test_digits():
    dataset = load("digits")
    labels = np.concatenate([dataset.train.labels, dataset.test.labels])
    assert len(labels) == 1797
    np.testing.assert_array_equal(np.bincount(labels), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    np.testing.assert_array_equal(np.bincount(dataset.test.labels), [round(n / 5) for n in np.bincount(labels)])
    assert dataset.class_names == tuple("0123456789")
    assert (dataset.channels, dataset.image_size, dataset.mirror) == (1, (8, 8), False)
    assert dataset.test.name(12) == "digits test #12"


def test_digits_use_the_full_range():
    images = load("digits").train.images
    assert (images.min(), images.max()) == (0, 255)
    assert len(np.unique(images)) == 17


def test_the_committed_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    ink, labels, held_out = digits_arrays()
    np.testing.assert_array_equal(ink, datasets.load_digits().images)
    np.testing.assert_array_equal(labels, datasets.load_digits().target)
    dataset = load("digits")
    scaled = np.round(ink * (255 / 16)).astype(int)
    for split, mine in ((dataset.train, ~held_out), (dataset.test, held_out)):
        np.testing.assert_array_equal(split.labels, labels[mine])
        np.testing.assert_allclose(split.images[..., 0], scaled[mine], atol=1)


def test_synthetic_sizes():
    dataset = load("synthetic:9x8x1:10:40")
    assert (len(dataset.train), len(dataset.test)) == (40, 5)
    assert dataset.train.image(0).shape == (9, 8, 1)
    assert len(dataset.class_names) == 10
    assert dataset.train.labels.max() < 10
    default = load("synthetic")
    assert (len(default.train), default.image_size, len(default.class_names)) == (512, (227, 227), 1000)


def test_synthetic_images_are_noise_that_repeats():
    once, again = load("synthetic:9x8x1:10:40"), load("synthetic:9x8x1:10:40")
    np.testing.assert_array_equal(once.train.labels, again.train.labels)
    np.testing.assert_array_equal(once.train.image(3), again.train.image(3))
    assert not np.array_equal(once.train.image(3), once.train.image(4))
    assert not np.array_equal(once.train.image(3), once.test.image(3))


@pytest.mark.parametrize("sizes", ["9x8", "9x8x1:10", "0x8x1:10:4", "9x8x1:10:0", "a", "9x8x1:10:4:5"])
def test_synthetic_sizes_of_another_form(sizes):
    with pytest.raises(ArgumentError, match="expected synthetic:HxWxC:classes:count"):
        load(f"synthetic:{sizes}")


def test_synthetic_channels():
    with pytest.raises(ArgumentError, match=r"channels: expected 1 .* got 2"):
        load("synthetic:9x8x2:10:4")


def test_unknown_name():
    with pytest.raises(UnknownNameError, match="unknown data 'digit': did you mean 'digits'"):
        load("digit")


@pytest.mark.parametrize("name", ["mnist", "cifar10", "folder"])
def test_a_folder_must_be_named_and_exist(name, tmp_path):
    with pytest.raises(ArgumentError, match=f"Write '{name}:DIR'"):
        load(name)
    with pytest.raises(ArgumentError, match=f"Write '{name}:DIR'"):
        load(f"{name}:")
    with pytest.raises(DataError, match="none: no such folder"):
        load(f"{name}:{tmp_path / 'none'}")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file: is a file; expected a folder"):
        load(f"{name}:{tmp_path / 'file'}")


def test_digits_take_no_folder():
    with pytest.raises(ArgumentError, match="write 'digits'"):
        load("digits:photos")


def test_a_bare_folder_is_told_how_to_write_it(tmp_path):
    with pytest.raises(ArgumentError, match=f"write 'folder:{tmp_path}'"):
        load(str(tmp_path))


def test_home_is_expanded(write_classes, monkeypatch):
    photos = write_classes({"cat": 2})
    monkeypatch.setenv("HOME", str(photos.parent))
    monkeypatch.setenv("USERPROFILE", str(photos.parent))
    assert load("folder:~/photos").class_names == ("cat",)
