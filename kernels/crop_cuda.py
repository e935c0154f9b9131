"""Crop, mirror and normalise images on the GPU: kernels/crop.cu. In float32 and float64, the bits of the body."""

from __future__ import annotations

from minidl.arrays import NHWC, Array
from minidl.kernels.cuda import Source, empty, rows, vector

CUDA = Source("crop")


def crop(images: Array, offsets: Array, mirrored: Array, mean: Array, std: Array, size: tuple[int, int]) -> NHWC:
    """See `minidl.ops.crop`."""
    N, H, W, C = images.shape
    OH, OW = size
    y = empty((N, OH, OW, C), mean.dtype, images)
    V = vector(OW * C, y)
    arrays = images, offsets, mirrored, mean, std, y
    CUDA.launch("crop", (y.dtype, V), *rows((N, OH, 1, OW * C), V), *arrays, H, W, C, OH, OW)
    return y
