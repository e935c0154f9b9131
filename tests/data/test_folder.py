from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minidl.data import load
from minidl.errors import DataError


def test_one_in_five_is_held_out(write_classes):
    photos = write_classes({"cat": 10, "dog": 5, "owl": 2, "yak": 1})
    dataset = load(f"folder:{photos}")
    assert dataset.class_names == ("cat", "dog", "owl", "yak")
    np.testing.assert_array_equal(np.bincount(dataset.test.labels, minlength=4), [2, 1, 1, 0])
    np.testing.assert_array_equal(np.bincount(dataset.train.labels), [8, 4, 1, 1])
    assert not set(dataset.train.paths) & set(dataset.test.paths)
    assert len({*dataset.train.paths, *dataset.test.paths}) == 18
    assert list(dataset.train.paths) == sorted(dataset.train.paths)
    assert dataset.notes == (f"{photos}: no folder val or test, so 4 of 18 images are held out to test on",)
    assert (dataset.channels, dataset.image_size, dataset.mirror) == (3, None, True)
    assert load(f"folder:{photos}").test.paths == dataset.test.paths


def test_images_carry_the_label_of_their_folder(write_classes):
    train = load(f"folder:{write_classes({'b': 3, 'a': 3})}").train
    for i in range(len(train)):
        red, green, _ = train.image(i)[0, 0]  # the number of the folder as it was written, and of the file
        assert train.labels[i] == 1 - red
        assert Path(train.name(i)).parts[-2:] == ("ba"[red], f"{green:03}.png")


def test_single_images_are_trained_and_tested_on(write_classes):
    dataset = load(f"folder:{write_classes({'cat': 1, 'dog': 1})}")
    assert dataset.train.paths == dataset.test.paths
    assert len(dataset.test) == 2
    assert "single image" in dataset.notes[0]


@pytest.mark.parametrize("name", ["val", "test"])
def test_given_folders(write_classes, name):
    photos = write_classes({"train/cat": 3, "train/dog": 2, f"{name}/cat": 1, f"{name}/dog": 2})
    dataset = load(f"folder:{photos}")
    assert dataset.class_names == ("cat", "dog")
    assert (len(dataset.train), list(dataset.test.labels)) == (5, [0, 1, 1])
    assert all(path.is_relative_to(photos / name) for path in dataset.test.paths)
    assert dataset.notes == ()


def test_train_folder_alone(write_classes):
    dataset = load(f"folder:{write_classes({'train/cat': 5, 'train/dog': 5})}")
    assert dataset.class_names == ("cat", "dog")
    assert (len(dataset.train), len(dataset.test)) == (8, 2)


def test_train_may_be_a_class(write_classes):
    assert load(f"folder:{write_classes({'boat': 2, 'train': 2})}").class_names == ("boat", "train")


def test_only_images_count(write_classes):
    photos = write_classes({"cat": 2, ".thumbnails": 3})
    (photos / "cat" / "000.png").rename(photos / "cat" / "000.PNG")
    (photos / "cat" / "002.JPeg").touch()
    for name in (".hidden.png", "readme.txt", "001.gif"):
        (photos / "cat" / name).touch()
    (photos / "list.txt").touch()
    dataset = load(f"folder:{photos}")
    assert dataset.class_names == ("cat",)
    assert sorted(p.name for s in (dataset.train, dataset.test) for p in s.paths) == [
        "000.PNG",
        "001.png",
        "002.JPeg",
    ]


def test_no_classes(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(DataError, match="expected a folder for each class, found none"):
        load(f"folder:{tmp_path}")


def test_class_without_images(write_classes):
    photos = write_classes({"cat": 2, "dog": 0})
    with pytest.raises(DataError, match=r"dog: expected images \(\.jpg, \.jpeg, \.png\), found none"):
        load(f"folder:{photos}")


@pytest.mark.parametrize(
    ("extra", "message"), [("train", "val: expected .* no folder 'owl'"), ("val", "train: .* 'owl'")]
)
def test_train_and_val_differ(write_classes, extra, message):
    photos = write_classes({"train/cat": 1, "val/cat": 1, f"{extra}/owl": 1})
    with pytest.raises(DataError, match=message):
        load(f"folder:{photos}")
