"""Images as arrays: uint8, (height, width, channels), 0 … 255."""

from __future__ import annotations

from numbers import Integral
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from minidl.arrays import require_array
from minidl.errors import ArgumentError, DataError, DTypeError, ShapeError, expect_integer, expect_path, told

Pixels: TypeAlias = NDArray[np.uint8]  # (H, W, C), or (N, H, W, C) for a batch

MAX_PIXELS = 64_000_000
CHANNELS = (1, 3)


def check_channels(channels: int) -> int:
    """The number of channels, when it is 1 (grey) or 3 (RGB).

    Raises: ArgumentError for any other.
    """
    if not isinstance(channels, Integral) or isinstance(channels, bool) or channels not in CHANNELS:
        raise ArgumentError(f"channels: expected 1 (grey) or 3 (RGB), got {told(channels)}")
    return int(channels)


def check_image(image: Pixels) -> Pixels:
    """The image, when it is one: uint8 of shape (H, W, 1) or (H, W, 3), not empty.

    Raises: ArgumentError, DTypeError or ShapeError saying what came.
    """
    require_array("image", image)
    if image.dtype != np.uint8:
        raise DTypeError(f"image: expected uint8 from 0 to 255, got {image.dtype}")
    if image.ndim != 3 or image.shape[2] not in CHANNELS or not image.size:
        raise ShapeError(f"image: expected (height, width, 1 or 3), got {image.shape}")
    return image


def read_image(path: str | Path, channels: int = 3, *, shorter_side: int | None = None) -> Pixels:
    """The JPEG or PNG file as uint8 (H, W, channels), upright.

    Every kind becomes 8-bit grey (`channels=1`) or RGB (`channels=3`): palettes, CMYK, 16 bits (the low byte is
    dropped) and alpha (laid over white). The EXIF orientation is applied. The kind is told from the content, not
    from the file's name.

    With `shorter_side`, a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, as long as its shorter side stays
    at least twice as long as asked for, so that a later resize has enough to average.

    Raises: DataError for a file that cannot be read; FormatError naming the path for one that is neither JPEG nor
    PNG, is damaged, or has more than 64 million pixels; ArgumentError for other channels, no path, or no size.
    """
    check_channels(channels)
    path = expect_path("", "path", path)
    if shorter_side is not None:
        shorter_side = expect_integer("", "shorter_side", shorter_side)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot read the image: {error.strerror or error}") from error

    from minidl.data.pillow import decode

    return decode(data, str(path), channels, shorter_side)


def with_channels(image: Pixels, channels: int) -> Pixels:
    """The image as grey or RGB: grey is repeated, RGB becomes its luma 0.299 R + 0.587 G + 0.114 B (ITU-R 601)."""
    if image.shape[2] == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, axis=2)

    from minidl.data.pillow import luma

    return luma(image)


def resample(image: Pixels, height: int, width: int, box: tuple[float, float, float, float] | None = None) -> Pixels:
    """The image, or its part `box` = (left, top, right, bottom), at another size.

    Bilinear; when shrinking, the triangle is widened by the factor (antialiasing). Pixels outside the box
    contribute as they would in a resize of the whole image.
    """
    from minidl.data.pillow import resize

    return resize(image, height, width, box)
