from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from minidl.data import load
from minidl.errors import DataError, FormatError

TRAIN = np.arange(6 * 4 * 5, dtype=np.uint8).reshape(6, 4, 5)
TEST = TRAIN[::-2]
FILES = {
    "train-images-idx3-ubyte": TRAIN,
    "train-labels-idx1-ubyte": np.array([3, 1, 4, 1, 5, 9], np.uint8),
    "t10k-images-idx3-ubyte": TEST,
    "t10k-labels-idx1-ubyte": np.array([2, 7, 1], np.uint8),
}


def idx(array: np.ndarray, magic: int | None = None) -> bytes:
    head = struct.pack(f">{1 + array.ndim}I", magic or 0x0800 + array.ndim, *array.shape)
    return head + array.astype(np.uint8).tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, array in FILES.items():
        (tmp_path / name).write_bytes(idx(array))
    return tmp_path


def check(folder: Path) -> None:
    dataset = load(f"mnist:{folder}")
    np.testing.assert_array_equal(dataset.train.images, TRAIN[..., None])
    np.testing.assert_array_equal(dataset.train.labels, [3, 1, 4, 1, 5, 9])
    np.testing.assert_array_equal(dataset.test.images, TEST[..., None])
    np.testing.assert_array_equal(dataset.test.labels, [2, 7, 1])
    assert (dataset.channels, dataset.image_size, dataset.mirror) == (1, (4, 5), False)


def test_plain(folder):
    check(folder)


def test_gzipped_and_named_with_a_dot(folder):
    for name in FILES:
        path = folder / name
        (folder / f"{name.replace('-idx', '.idx')}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    check(folder)


def test_missing_file(folder):
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"expected one of t10k-labels-idx1-ubyte, .*ubyte\.gz, found none"):
        load(f"mnist:{folder}")


def damaged(folder: Path, name: str, data: bytes) -> str:
    (folder / name).write_bytes(data)
    with pytest.raises(FormatError) as caught:
        load(f"mnist:{folder}")
    return str(caught.value).removeprefix(str(folder / name))


def test_wrong_magic(folder):
    message = damaged(folder, "train-images-idx3-ubyte", idx(TRAIN, magic=2049))
    assert message == ": expected the magic number 2051 (unsigned bytes, 3 axes), got 2049"


def test_truncated(folder):
    message = damaged(folder, "train-images-idx3-ubyte", idx(TRAIN)[:-1])
    assert message == ": truncated: expected 120 bytes for shape (6, 4, 5), got 119"


def test_trailing_data(folder):
    message = damaged(folder, "t10k-labels-idx1-ubyte", idx(FILES["t10k-labels-idx1-ubyte"]) + b"\0\0")
    assert message == ": too long: expected 3 bytes for shape (3,), got 5"


def test_no_room_for_the_header(folder):
    message = damaged(folder, "train-images-idx3-ubyte", idx(TRAIN)[:10])
    assert message == ": expected an idx header of 16 bytes, got 10 bytes in all"


def test_fewer_labels_than_images(folder):
    message = damaged(folder, "train-labels-idx1-ubyte", idx(np.zeros(5)))
    assert message == ": expected 6 labels, one for each image of train-images-idx3-ubyte, got 5"


def test_label_out_of_range(folder):
    message = damaged(folder, "train-labels-idx1-ubyte", idx(np.array([3, 1, 4, 1, 5, 10])))
    assert message == ": expected labels from 0 to 9, got 10"


def test_no_images(folder):
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(0)))
    message = damaged(folder, "train-images-idx3-ubyte", idx(np.zeros((0, 4, 5))))
    assert message == ": expected images, got none: shape (0, 4, 5)"


def test_training_and_test_images_of_different_sizes(folder):
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((3, 5, 5))))
    with pytest.raises(FormatError, match=r"training images are \(4, 5\), the test images \(5, 5\)"):
        load(f"mnist:{folder}")


@pytest.mark.parametrize("damage", [lambda data: data[:-12], lambda data: b"no gzip", lambda data: data[:20]])
def test_damaged_gzip(folder, damage):
    (folder / "train-images-idx3-ubyte").unlink()
    message = damaged(folder, "train-images-idx3-ubyte.gz", damage(gzip.compress(idx(TRAIN))))
    assert message.startswith(": damaged or truncated gzip file: ")
