"""What a net sees of a batch of images: a part of each, mirrored or not, and normalised."""

from __future__ import annotations

from minidl.accelerate import accelerated
from minidl.arrays import NHWC, Array, array_module


@accelerated
def crop(images: Array, offsets: Array, mirrored: Array, mean: Array, std: Array, size: tuple[int, int]) -> NHWC:
    """y_nijc = (images[n, top_n + i, left_n + j′, c] − mean_c) / std_c,    j′ = j, or OW − 1 − j where mirrored

    images (N, H, W, C) of uint8, offsets (N, 2) of int64 holding top and left, mirrored (N,) of bool, mean and std (C,)
    in units of 0 … 255, size OH and OW → y (N, OH, OW, C) in the dtype of mean: what `Preprocessing.pixels` and
    `Preprocessing.normalise` give, bit for bit. The whole part lies in the image.
    """
    xp = array_module(images)
    OH, OW = size
    j = xp.arange(OW)
    rows = offsets[:, :1] + xp.arange(OH)
    columns = offsets[:, 1:] + xp.where(mirrored[:, None], OW - 1 - j, j)
    sample = xp.arange(len(images))
    pixels = images[sample[:, None, None], rows[:, :, None], columns[:, None, :]]
    y: NHWC = (pixels.astype(mean.dtype) - mean) / std
    return y
