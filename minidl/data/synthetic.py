"""Random noise with random labels: what a benchmark needs, and no disk."""

from __future__ import annotations

import re

import numpy as np

from minidl.data.dataset import Dataset, Split
from minidl.data.images import Pixels, check_channels
from minidl.errors import ArgumentError
from minidl.random import Key

DEFAULT = "227x227x3:1000:512"

LARGEST = 100_000  # pixels a side, and classes


class SyntheticSplit(Split):
    """Noise images, each made from the key and its number when asked for, so that they take no memory."""

    def __init__(self, count: int, shape: tuple[int, int, int], classes: int, key: Key, title: str) -> None:
        super().__init__(key.at("labels").generator().integers(classes, size=count))
        self.shape = shape
        self.key = key.at("images")
        self.title = title

    def image(self, i: int, *, shorter_side: int | None = None) -> Pixels:
        """Image i: every value from 0 to 255 equally likely."""
        return self.key.at(int(i)).generator().integers(256, size=self.shape, dtype=np.uint8)

    def name(self, i: int) -> str:
        """The split's title and the image's number."""
        return f"{self.title} #{i}"


def load_synthetic(sizes: str = "") -> Dataset:
    """`HxWxC:classes:count` noise images to train on and an eighth of that to test on; by default 227x227x3:1000:512.

    Raises: ArgumentError for sizes of another form.
    """
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+):(\d+):(\d+)", sizes or DEFAULT)
    H, W, C, classes, count = (int(group) for group in match.groups()) if match else (0,) * 5
    if not (0 < H <= LARGEST and 0 < W <= LARGEST and C and 0 < classes <= LARGEST and 0 < count <= 10**9):
        raise ArgumentError(
            f"data 'synthetic:{sizes}': expected synthetic:HxWxC:classes:count with sizes of 1 to {LARGEST}, "
            f"as in 'synthetic:{DEFAULT}'"
        )
    check_channels(C)
    key = Key(0).at("synthetic")
    return Dataset(
        spec=f"synthetic:{sizes or DEFAULT}",
        class_names=tuple(f"class {i}" for i in range(classes)),
        train=SyntheticSplit(count, (H, W, C), classes, key.at("train"), "synthetic train"),
        test=SyntheticSplit(max(1, count // 8), (H, W, C), classes, key.at("test"), "synthetic test"),
        channels=C,
        image_size=(H, W),
        mirror=True,
    )
