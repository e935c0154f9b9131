"""MNIST and its relatives: idx files.

An idx file is a big-endian 32-bit magic number (0x0800 + the number of axes, for unsigned bytes), the length of each
axis as 32 bits, and the bytes.

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minidl.data.dataset import ArraySplit, Dataset, existing_folder
from minidl.errors import DataError, FormatError


def load_mnist(folder: Path) -> Dataset:
    """The four idx files of a folder: `train-` and `t10k-images-idx3-ubyte`, `…-labels-idx1-ubyte`, plain or `.gz`.

    Files named with a dot (`train-images.idx3-ubyte`) are found too. Fashion-MNIST and KMNIST have the same names;
    their classes are called "0" … "9" here.

    Raises: DataError naming the files that are missing; FormatError naming the one that is damaged.
    """
    existing_folder(folder)
    train, test = _split(folder, "train"), _split(folder, "t10k")
    if train.images.shape[1:] != test.images.shape[1:]:
        raise FormatError(
            f"{folder}: the training images are {train.images.shape[1:3]}, the test images {test.images.shape[1:3]}"
        )
    _, H, W, _ = train.images.shape
    return Dataset(
        spec=f"mnist:{folder}",
        class_names=tuple("0123456789"),
        train=train,
        test=test,
        channels=1,
        image_size=(H, W),
        mirror=False,
    )


def _split(folder: Path, prefix: str) -> ArraySplit:
    images_path = _find(folder, f"{prefix}-images", "idx3-ubyte")
    labels_path = _find(folder, f"{prefix}-labels", "idx1-ubyte")
    images, labels = read_idx(images_path, axes=3), read_idx(labels_path, axes=1)
    if len(images) != len(labels):
        raise FormatError(
            f"{labels_path}: expected {len(images)} labels, one for each image of {images_path.name}, got {len(labels)}"
        )
    if not images.size:
        raise FormatError(f"{images_path}: expected images, got none: shape {images.shape}")
    if labels.max() > 9:
        raise FormatError(f"{labels_path}: expected labels from 0 to 9, got {labels.max()}")
    return ArraySplit(images[..., np.newaxis], labels, f"{folder.name} {prefix}")


def _find(folder: Path, stem: str, suffix: str) -> Path:
    names = [f"{stem}{joint}{suffix}{packing}" for packing in ("", ".gz") for joint in ("-", ".")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder}: expected one of {', '.join(names)}, found none")


def read_idx(path: Path, axes: int) -> NDArray[Any]:
    """The unsigned bytes of an idx file, plain or gzipped (`.gz`), as an array of that many axes.

    Raises: DataError where it cannot be read; FormatError for another magic number, or too few or too many bytes.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot read the file: {error.strerror or error}") from error
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise FormatError(f"{path}: damaged or truncated gzip file: {error}") from error

    header = 4 + 4 * axes
    if len(data) < header:
        raise FormatError(f"{path}: expected an idx header of {header} bytes, got {len(data)} bytes in all")
    magic, *shape = struct.unpack_from(f">{1 + axes}I", data)
    if magic != 0x0800 + axes:
        raise FormatError(
            f"{path}: expected the magic number {0x0800 + axes} (unsigned bytes, {axes} axes), got {magic}"
        )
    expected, got = math.prod(shape), len(data) - header
    if got != expected:
        what = "truncated" if got < expected else "too long"
        raise FormatError(f"{path}: {what}: expected {expected} bytes for shape {tuple(shape)}, got {got}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
