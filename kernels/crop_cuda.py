"""Crop, mirror and normalise images on the GPU: kernels/crop.cu. In float32 and float64, the bits of the body."""

from __future__ import annotations

from minidl.arrays import NHWC, Array
from minidl.kernels.cuda import Source, empty, rows

CUDA = Source("crop")


def crop(images: Array, offsets: Array, mirrored: Array, mean: Array, std: Array, size: tuple[int, int]) -> NHWC:
    """See `minidl.ops.crop`."""
    N, H, W, C = images.shape
    OH, OW = size
    y = empty((N, OH, OW, C), mean.dtype, images)
    grid = rows((N, 1, OH, OW * C), 1)
    CUDA.launch("crop", (y.dtype,), *grid, images, offsets, mirrored, mean, std, y, H, W, C, OH, OW)
    return y
