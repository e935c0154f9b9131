"""CIFAR-10, the binary version.

A file is 10,000 records of 3,073 bytes: a label, then 32×32 red, green and blue values, plane after plane.

Source: A. Krizhevsky 2009, "Learning multiple layers of features from tiny images",
https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from minidl.data.dataset import ArraySplit, Dataset, existing_folder
from minidl.errors import DataError, FormatError

RECORDS = 10_000
_RECORD_BYTES = 1 + 3 * 32 * 32
_TRAIN = [f"data_batch_{i}.bin" for i in range(1, 6)]
_TEST = ["test_batch.bin"]
_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def load_cifar10(folder: Path) -> Dataset:
    """`data_batch_1.bin` … `data_batch_5.bin` and `test_batch.bin` of a folder, or of its `cifar-10-batches-bin`.

    Raises: DataError naming the files that are missing; FormatError for a damaged file, and for the Python version,
    which is made of pickles.
    """
    existing_folder(folder)
    inner = folder / "cifar-10-batches-bin"
    place = inner if inner.is_dir() else folder
    missing = [name for name in _TRAIN + _TEST if not (place / name).is_file()]
    if missing:
        if (folder / "cifar-10-batches-py").is_dir() or (folder / "data_batch_1").is_file():
            raise FormatError(
                f"{folder}: this is the Python version of CIFAR-10, made of pickles, and opening a pickle runs "
                "whatever code it holds; unpack cifar-10-binary.tar.gz here instead"
            )
        raise DataError(
            f"{place}: expected the binary version of CIFAR-10, but {', '.join(missing)} not found; "
            "unpack cifar-10-binary.tar.gz here"
        )
    return Dataset(
        spec=f"cifar10:{folder}",
        class_names=_class_names(place / "batches.meta.txt"),
        train=_split(place, _TRAIN, "cifar10 train"),
        test=_split(place, _TEST, "cifar10 test"),
        channels=3,
        image_size=(32, 32),
        mirror=True,
    )


def _split(place: Path, names: Sequence[str], title: str) -> ArraySplit:
    images = np.empty((len(names) * RECORDS, 32, 32, 3), np.uint8)
    labels = np.empty(len(images), np.int64)
    for i, name in enumerate(names):
        part = slice(i * RECORDS, (i + 1) * RECORDS)
        data = np.fromfile(place / name, np.uint8)
        if data.size != RECORDS * _RECORD_BYTES:
            raise FormatError(
                f"{place / name}: expected {RECORDS * _RECORD_BYTES} bytes "
                f"({RECORDS} images of {_RECORD_BYTES}), got {data.size}"
            )
        records = data.reshape(RECORDS, _RECORD_BYTES)
        if records[:, 0].max() > 9:
            raise FormatError(f"{place / name}: expected labels from 0 to 9, got {records[:, 0].max()}")
        labels[part] = records[:, 0]
        images[part] = records[:, 1:].reshape(RECORDS, 3, 32, 32).transpose(0, 2, 3, 1)
    return ArraySplit(images, labels, title)


def _class_names(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return _NAMES
    names = tuple(path.read_text(encoding="utf-8", errors="replace").split())
    if len(names) != len(_NAMES):
        raise FormatError(f"{path}: expected {len(_NAMES)} class names, got {len(names)}")
    return names
