"""Write `digits.npz` from scikit-learn's copy of the digits: `python -m minidl.data.make_digits`.

Needed only to make the file again; using minidl does not need scikit-learn.
"""

from __future__ import annotations

import gzip
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minidl.data.dataset import stratified_split
from minidl.random import Key


def digits_arrays() -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
    """`ink` (1797, 8, 8) from 0 to 16, `labels` (1797,), and `held_out` (1797,), which marks the test split."""
    packed = resources.files("sklearn.datasets").joinpath("data", "digits.csv.gz").read_bytes()
    rows = np.loadtxt(gzip.decompress(packed).decode().splitlines(), delimiter=",", dtype=np.uint8)
    labels = rows[:, 64]
    _, test = stratified_split(labels.astype(np.int64), key=Key(0).at("digits"))
    held_out = np.zeros(len(rows), bool)
    held_out[test] = True
    return rows[:, :64].reshape(-1, 8, 8), labels, held_out


if __name__ == "__main__":
    ink, labels, held_out = digits_arrays()
    np.savez_compressed(Path(__file__).with_name("digits.npz"), ink=ink, labels=labels, held_out=held_out)
