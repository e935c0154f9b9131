from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def noise() -> Callable[..., np.ndarray]:
    """Random uint8 of a shape, the same for the same arguments."""

    def make(*shape: int, seed: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)

    return make


@pytest.fixture
def write_classes(tmp_path: Path) -> Callable[..., Path]:
    """Write count PNG files of size 12×10 for each class; the colour of every image is its own."""

    def write(counts: dict[str, int], folder: str = "photos") -> Path:
        for label, (name, count) in enumerate(counts.items()):
            (tmp_path / folder / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (10, 12), (label, i, 7)).save(tmp_path / folder / name / f"{i:03}.png")
        return tmp_path / folder

    return write
