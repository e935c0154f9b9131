"""The handwritten digits that come with minidl."""

from __future__ import annotations

from importlib import resources

import numpy as np

from minidl.data.dataset import ArraySplit, Dataset


def load_digits() -> Dataset:
    """1,797 real handwritten digits, grey, 8×8, about 180 of each; 1,438 to train on, 359 to test on.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (its test set), UCI Machine Learning
    Repository, doi 10.24432/C50P49, CC BY 4.0. See DIGITS.md beside this file; `make_digits.py` made the copy.
    """
    with (
        resources.files("minidl.data").joinpath("digits.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as arrays,
    ):
        ink, labels, held_out = arrays["ink"], arrays["labels"], arrays["held_out"]
    # Ink is counted from 0 to 16.
    images = ((ink.astype(np.uint16) * 255 + 8) // 16).astype(np.uint8)[..., np.newaxis]
    return Dataset(
        spec="digits",
        class_names=tuple("0123456789"),
        train=ArraySplit(images[~held_out], labels[~held_out], "digits train"),
        test=ArraySplit(images[held_out], labels[held_out], "digits test"),
        channels=1,
        image_size=(8, 8),
        mirror=False,
    )
