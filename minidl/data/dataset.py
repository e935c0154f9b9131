"""What a data set is: class names, and labelled images in two splits."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minidl.arrays import as_array, require_array
from minidl.data.images import Pixels, check_channels, read_image
from minidl.errors import (
    ArgumentError,
    DataError,
    DTypeError,
    LabelError,
    ShapeError,
    expect_a,
    expect_flag,
    expect_integer,
    expect_path,
    told,
)
from minidl.random import Key

Labels: TypeAlias = NDArray[np.int64]


class Split(ABC):
    """Labelled images, read one at a time and from any thread.

    `labels` is int64 of shape (N,): the class of each image.

    Raises: ArgumentError, ShapeError, LabelError for labels that are not one class number for each image.
    """

    labels: Labels

    def __init__(self, labels: ArrayLike) -> None:
        self.labels = _labels(labels)

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def image(self, i: int, *, shorter_side: int | None = None) -> Pixels:
        """Image i as uint8 (H, W, C). With `shorter_side` it may come smaller, but that side at least so long.

        Raises: DataError or FormatError naming the image where it cannot be read.
        """

    @abstractmethod
    def name(self, i: int) -> str:
        """What to call image i in a message."""


def _labels(labels: ArrayLike) -> Labels:
    array = as_array("labels", labels, np.empty(0))
    if array.ndim != 1:
        raise ShapeError(f"labels: expected one for each image, shape (N,), got {array.shape}")
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise LabelError(f"labels: expected integers, got {array.dtype}")
    if array.size and array.min() < 0:
        raise LabelError(f"labels: expected the numbers of classes, from 0, got {array.min()}")
    return array.astype(np.int64)


class ArraySplit(Split):
    """Images of one size in memory: uint8 of shape (N, H, W, C).

    >>> split = ArraySplit(np.zeros((2, 8, 8, 1), np.uint8), [3, 7], "digits test")
    >>> split.name(1), split.labels[1].item(), split.image(1).shape
    ('digits test #1', 7, (8, 8, 1))

    Raises: ArgumentError, DTypeError, ShapeError, LabelError for other arrays.
    """

    def __init__(self, images: Pixels, labels: ArrayLike, title: str = "image") -> None:
        super().__init__(labels)
        require_array("images", images)
        if images.dtype != np.uint8:
            raise DTypeError(f"images: expected uint8 from 0 to 255, got {images.dtype}")
        if images.ndim != 4 or len(images) != len(self.labels):
            raise ShapeError(
                f"images: expected ({len(self.labels)}, height, width, channels), one for each label, "
                f"got {images.shape}"
            )
        check_channels(images.shape[3])
        self.images = images
        self.title = title

    def image(self, i: int, *, shorter_side: int | None = None) -> Pixels:
        """Image i, a view."""
        view: Pixels = self.images[i]
        return view

    def name(self, i: int) -> str:
        """The split's title and the image's number."""
        return f"{self.title} #{i}"


class FileSplit(Split):
    """Images in JPEG or PNG files, decoded when asked for; the sizes may differ.

    Raises: ShapeError where paths and labels differ in number; ArgumentError, LabelError for paths or labels that are
        none, and for channels other than 1 and 3.
    """

    def __init__(self, paths: Sequence[Path], labels: ArrayLike, channels: int = 3) -> None:
        super().__init__(labels)
        if isinstance(paths, str) or not isinstance(paths, Sequence):
            raise ArgumentError(f"paths: expected a sequence of paths, got {told(paths)}")
        if len(paths) != len(self.labels):
            raise ShapeError(f"labels: expected {len(paths)}, one for each path, got {len(self.labels)}")
        self.paths = tuple(expect_path("", f"paths[{i}]", path) for i, path in enumerate(paths))
        self.channels = check_channels(channels)

    def image(self, i: int, *, shorter_side: int | None = None) -> Pixels:
        """Image i, decoded by `read_image`."""
        return read_image(self.paths[i], self.channels, shorter_side=shorter_side)

    def name(self, i: int) -> str:
        """The path."""
        return str(self.paths[i])


@dataclass(frozen=True)
class Dataset:
    """Images to learn from and others to test on, with the names of their classes.

    `spec` is what `load` was given. `channels` is 1 or 3; `image_size` is (height, width), None where sizes vary.
    `mirror` tells whether a mirrored image still shows the same thing: a photograph does, a digit does not.
    `notes` are sentences for the user about choices that were made while loading.

    Raises: ArgumentError for names, splits, channels or sizes that are none; LabelError for a label without a name.
    """

    spec: str
    class_names: tuple[str, ...]
    train: Split
    test: Split
    channels: int
    image_size: tuple[int, int] | None
    mirror: bool
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = self.class_names
        if not isinstance(names, tuple) or not names or not all(isinstance(name, str) for name in names):
            raise ArgumentError(f"class_names: expected a tuple of names, got {told(names)}")
        for place in ("train", "test"):
            split = getattr(self, place)
            expect_a(Split, "", place, split)
            if len(split) and split.labels.max() >= len(names):
                raise LabelError(f"{place}: expected labels from 0 to {len(names) - 1}, got {split.labels.max()}")
        check_channels(self.channels)
        if self.image_size is not None and not (isinstance(self.image_size, tuple) and len(self.image_size) == 2):
            raise ArgumentError(f"image_size: expected (height, width) or None, got {told(self.image_size)}")
        for size in self.image_size or ():
            expect_integer("", "image_size", size)
        expect_flag("", "mirror", self.mirror)

    def fingerprint(self) -> str:
        """Tells whether two data sets hold images of the same names and labels in the same splits.

        >>> from minidl.data import load
        >>> load("digits").fingerprint()
        '1438 + 359 images, 91a8d94d'
        """
        crc = 0
        for split in (self.train, self.test):
            names = "\n".join("/".join(Path(split.name(i)).parts[-2:]) for i in range(len(split)))
            crc = zlib.crc32(split.labels.tobytes(), zlib.crc32(names.encode(errors="surrogateescape"), crc))
        return f"{len(self.train)} + {len(self.test)} images, {crc:08x}"


def existing_folder(path: Path) -> Path:
    """The path, when a folder is there.

    Raises: DataError naming it.
    """
    if not path.is_dir():
        what = "is a file; expected a folder" if path.exists() else "no such folder"
        raise DataError(f"{path}: {what}")
    return path


def stratified_split(labels: Labels, *, one_in: int = 5, key: Key) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the images to train on and of those to test on, both ascending; the same share of every class.

    A class of n images gives n / one_in of them to the test, rounded, but at least one, and none where n = 1.
    Which ones follows from the key and the class alone.

    Raises: ArgumentError for one_in < 2, and what is no key; those of `Split` for labels that are none.
    """
    labels, one_in = _labels(labels), expect_integer("", "one_in", one_in, least=2)
    expect_a(Key, "", "key", key)
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        n = len(members)
        count = max(1, round(n / one_in)) if n > 1 else 0
        held_out[key.at(int(label)).generator().permutation(members)[:count]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
