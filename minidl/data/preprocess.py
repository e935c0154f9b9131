"""From an image of any size to the array that a net takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from minidl.arrays import Array, DTypeLike, array_module, float_dtype, require_array
from minidl.data.dataset import ArraySplit, Split
from minidl.data.images import Pixels, check_channels, check_image, resample, with_channels
from minidl.errors import (
    ArgumentError,
    DataError,
    FormatError,
    ShapeError,
    UnknownNameError,
    expect_a,
    expect_flag,
    expect_integer,
    expect_number,
    expect_positive,
)


def check_on_bad_image(value: str) -> None:
    """Raises: UnknownNameError for anything but "raise" and "skip"."""
    if value not in ("raise", "skip"):
        raise UnknownNameError("on_bad_image", value, ["raise", "skip"])


def default_resize(height: int, width: int) -> int:
    """The shorter side from which to crop height×width: the paper's ratio 256 / 224, in steps of 4.

    >>> [default_resize(n, n) for n in (224, 227, 32, 28)]
    [256, 256, 36, 32]
    """
    size = max(height, width)
    return max(size, size * 8 // 7 // 4 * 4)


@dataclass(frozen=True)
class Preprocessing:
    """How images become a net's input; a trained model is stored with it.

    The image is resized until its shorter side is `resize` (bilinear, antialiased, aspect kept), a part of
    height×width is cut out, mirrored or not, turned into `channels` (grey or RGB), and per channel c

        x_c = (pixel_c − mean_c) / std_c         pixel, mean and std in units of 0 … 255

    `mirror` tells whether training may mirror.

    Raises: ArgumentError for values that make no sense, such as a `resize` smaller than the crop.

    Source: Krizhevsky et al. 2012, §2 (256, centre) and §4.1 (random crops and mirroring); they subtract a mean
    image, do not divide, and crop from the central square, where here crops range over the whole resized image.
    """

    height: int
    width: int
    channels: int
    resize: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mirror: bool

    def __post_init__(self) -> None:
        for name in ("height", "width", "resize"):
            value = getattr(self, name)
            object.__setattr__(self, name, expect_integer("", name, value))
        object.__setattr__(self, "channels", check_channels(self.channels))
        if self.resize < max(self.height, self.width):
            raise ArgumentError(
                f"resize: expected at least {max(self.height, self.width)}, since {self.height}×{self.width} is cut "
                f"from an image with that shorter side; got {self.resize}"
            )
        for name, least in (("mean", -math.inf), ("std", 0.0)):
            values = getattr(self, name)
            if not (
                isinstance(values, tuple)
                and len(values) == self.channels
                and all(type(v) in (int, float) and math.isfinite(v) and v > least for v in values)
            ):
                above = " above 0" if name == "std" else ""
                raise ArgumentError(f"{name}: expected {self.channels} finite number(s){above}, got {values!r}")
        if type(self.mirror) is not bool:
            raise ArgumentError(f"mirror: expected True or False, got {self.mirror!r}")

    def resized_size(self, H: int, W: int) -> tuple[int, int]:
        """Height and width of an H×W image after the resize.

        >>> Preprocessing(224, 224, 1, 256, (0.0,), (1.0,), False).resized_size(375, 500)
        (256, 341)

        Raises: ArgumentError for sizes that are none.
        """
        H, W = expect_positive("", H=H, W=W)
        shorter = min(H, W)
        return round(H * self.resize / shorter), round(W * self.resize / shorter)

    def pixels(self, image: Pixels, *, top: float = 0.5, left: float = 0.5, mirrored: bool = False) -> Pixels:
        """The part of the resized image that the net sees, still uint8: (height, width, channels).

        `top` and `left` place the crop, from 0 (first row, column) to 1 (last); equal ranges of them belong to the
        offsets that are possible, so uniform numbers give uniform offsets. 0.5 is the centre.

        Raises: ArgumentError, DTypeError, ShapeError where the image is not uint8 (H, W, 1 or 3), or the place not one
        from 0 to 1.
        """
        top, left = expect_number("", "top", top, "[0, 1]"), expect_number("", "left", left, "[0, 1]")
        mirrored = expect_flag("", "mirrored", mirrored)
        H, W, _ = check_image(image).shape
        RH, RW = self.resized_size(H, W)
        y, x = _offset(top, RH - self.height), _offset(left, RW - self.width)
        bottom, right = y + self.height, x + self.width
        if (RH, RW) == (H, W):
            view = image[y:bottom, x:right]
        else:
            # Only what is kept is resampled: fewer pixels to compute, and no blow-up of a very long, thin image.
            box = (x * W / RW, y * H / RH, right * W / RW, bottom * H / RH)
            view = resample(image, self.height, self.width, box)
        view = with_channels(view, self.channels)
        return view[:, ::-1] if mirrored else view

    def normalise(self, pixels: Pixels, dtype: DTypeLike = "float32") -> Array:
        """(pixel − mean) / std for an image (H, W, C) or a batch (N, H, W, C).

        Raises: DTypeError for a dtype other than float32 and float64; ArgumentError, ShapeError for pixels that are no
        array (…, W, C) of as many channels.
        """
        require_array("pixels", pixels)
        if pixels.ndim < 2 or pixels.shape[-1] != self.channels:
            raise ShapeError(f"pixels: expected (height, width, {self.channels}) or a batch of it, got {pixels.shape}")
        *_, W, C = pixels.shape
        # Row by row: NumPy's innermost loop would otherwise be C = 3 long.
        rows = pixels.reshape(-1, W * C).astype(float_dtype(dtype))
        xp = array_module(rows)
        rows -= xp.asarray(np.tile(np.array(self.mean, rows.dtype), W))
        rows /= xp.asarray(np.tile(np.array(self.std, rows.dtype), W))
        return rows.reshape(pixels.shape)

    def apply(
        self,
        image: Pixels,
        *,
        top: float = 0.5,
        left: float = 0.5,
        mirrored: bool = False,
        dtype: DTypeLike = "float32",
    ) -> Array:
        """The image as the net takes it, (height, width, channels): `pixels`, then `normalise`."""
        return self.normalise(self.pixels(image, top=top, left=left, mirrored=mirrored), dtype)

    def resized(self, split: ArraySplit) -> ArraySplit:
        """The split with every image already resized, so that `pixels` only cuts.

        Raises: ArgumentError for another kind of split.
        """
        expect_a(ArraySplit, "", "split", split)
        N, H, W, C = split.images.shape
        RH, RW = self.resized_size(H, W)
        if (RH, RW) == (H, W):
            return split
        images = np.empty((N, RH, RW, C), np.uint8)
        for i in range(N):
            images[i] = resample(split.images[i], RH, RW)
        return ArraySplit(images, split.labels, split.title)

    @classmethod
    def measured_on(
        cls,
        split: Split,
        *,
        height: int,
        width: int,
        channels: int = 3,
        mirror: bool = False,
        resize: int | None = None,
        limit: int = 1000,
        on_bad_image: str = "raise",
    ) -> Preprocessing:
        """A preprocessing with the mean and the standard deviation of a training split, each per channel.

        They are measured, exactly, over the centre crops of up to `limit` images, evenly spaced through the split.
        The deviation is at least 1 (of 255), so that a constant channel does not divide by zero. `resize` is
        `default_resize(height, width)` unless given.

        Raises: ArgumentError for sizes that make no sense; DataError where there is no image to measure, and, unless
        `on_bad_image="skip"`, DataError or FormatError for an image that cannot be read.
        """
        check_on_bad_image(on_bad_image)
        expect_a(Split, "", "split", split)
        height, width, limit = expect_positive("", height=height, width=width, limit=limit)
        channels = check_channels(channels)
        resize = default_resize(height, width) if resize is None else resize
        plain = cls(height, width, channels, resize, (0.0,) * channels, (1.0,) * channels, mirror)
        total, squares, images = np.zeros(channels, np.int64), np.zeros(channels, np.int64), 0
        sample = min(len(split), limit)
        for i in range(sample):
            try:
                image = split.image(i * len(split) // sample, shorter_side=resize)
            except (DataError, FormatError):
                if on_bad_image == "raise":
                    raise
                continue
            pixels = plain.pixels(image).reshape(-1, channels).astype(np.int64)
            total += pixels.sum(axis=0)
            squares += (pixels**2).sum(axis=0)
            images += 1
        if not images:
            raise DataError(f"no image to measure mean and deviation on: {sample} tried, of {len(split)}")
        n = images * height * width
        mean = tuple(int(s) / n for s in total)
        # Var x = (n·Σx² − (Σx)²) / n², in integers
        variance = [(n * int(q) - int(s) ** 2) / n**2 for s, q in zip(total, squares, strict=True)]
        std = tuple(max(1.0, math.sqrt(v)) for v in variance)
        return cls(height, width, channels, resize, mean, std, mirror)

    def to_dict(self) -> dict[str, Any]:
        """The fields, as JSON can hold them."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: object) -> Preprocessing:
        """The inverse of `to_dict`.

        Raises: FormatError saying which field is missing, unknown or wrong.
        """
        expected = [field.name for field in fields(cls)]
        if not isinstance(values, Mapping) or sorted(map(str, values)) != sorted(expected):
            got = ", ".join(map(str, values)) if isinstance(values, Mapping) else repr(values)
            raise FormatError(f"preprocessing: expected the fields {', '.join(expected)}, got {got}")
        arguments: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        try:
            return cls(**arguments)
        except ArgumentError as error:
            raise FormatError(f"preprocessing: {error}") from error


def _offset(fraction: float, room: int) -> int:
    return min(int(fraction * (room + 1)), room)
