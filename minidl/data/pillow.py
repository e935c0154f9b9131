"""Everything that touches Pillow. Imported at first use: `import minidl` need not pay for it."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from minidl.data.images import MAX_PIXELS, Pixels
from minidl.errors import FormatError

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class _Jpeg(JpegImageFile):
    """A JPEG that hides its EXIF from Pillow, which looks there for a resolution and warns where it is damaged."""

    def getexif(self) -> Image.Exif:
        return Image.Exif()


def decode(data: bytes, name: str, channels: int, shorter_side: int | None) -> Pixels:
    """The work of `read_image`, from the file's bytes; `name` is for the errors."""
    # The two readers are called directly: Image.open would accept dozens of formats, and would decode or warn
    # about sizes that are refused here.
    if data.startswith(b"\xff\xd8\xff"):
        reader: type[JpegImageFile | PngImageFile] = _Jpeg
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        reader = PngImageFile
    else:
        raise FormatError(f"{name}: expected a JPEG or PNG image, but it begins with {data[:8]!r}")
    try:
        image = reader(io.BytesIO(data))
        W, H = image.size
        if H * W <= MAX_PIXELS:
            if shorter_side is not None:
                image.draft(None, (2 * shorter_side, 2 * shorter_side))
            image.load()
            return _as_array(image, channels)
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        raise FormatError(f"{name}: damaged or truncated image: {error}") from error
    raise FormatError(
        f"{name}: {W}×{H} pixels are more than the {MAX_PIXELS:,} allowed; shrink the image or take it out"
    )


def _as_array(image: Image.Image, channels: int) -> Pixels:
    turn = _UPRIGHT.get(orientation(image.info.get("exif", b"")))
    if image.mode.startswith("I"):  # 16 bits
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    image = image.convert("L" if channels == 1 else "RGB")
    if turn is not None:
        image = image.transpose(turn)
    return np.array(image).reshape(image.height, image.width, channels)


def orientation(exif: bytes) -> int:
    """The orientation 1 … 8 that EXIF data state; 1 (upright) where they state none or are damaged.

    EXIF is a small TIFF file: a byte order, the place of a table, and in the table 12 bytes for each tag.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (table,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, table)
        for i in range(count):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, table + 2 + 12 * i)
            if tag == 0x0112:
                return int(value)
    except struct.error:
        pass
    return 1


def resize(image: Pixels, height: int, width: int, box: tuple[float, float, float, float] | None) -> Pixels:
    """The work of `minidl.data.images.resample`."""
    C = image.shape[2]
    source = Image.fromarray(image[:, :, 0] if C == 1 else image)
    result = source.resize((width, height), Image.Resampling.BILINEAR, box)
    return np.asarray(result).reshape(height, width, C)


def luma(image: Pixels) -> Pixels:
    """The RGB image as grey, (H, W, 1)."""
    return np.asarray(Image.fromarray(image).convert("L"))[:, :, np.newaxis]
