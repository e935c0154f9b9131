from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from minidl.data import read_image
from minidl.data.pillow import orientation
from minidl.errors import ArgumentError, DataError, FormatError

GREY = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)


def exif(value: int, order: str = ">", tag: int = 0x0112) -> bytes:
    """The smallest EXIF block with one SHORT tag."""
    head = {">": b"MM\0*", "<": b"II*\0"}[order]
    return b"Exif\0\0" + head + struct.pack(f"{order}IHHHIHHI", 8, 1, tag, 3, 1, value, 0, 0)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_rgb_png_is_read_exactly(tmp_path, noise):
    pixels = noise(5, 7, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, pixels)


def test_rgb_becomes_its_luma(tmp_path, noise):
    pixels = noise(5, 7, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_image(str(tmp_path / "a.png"), channels=1)
    assert image.shape == (5, 7, 1)
    np.testing.assert_allclose(image[..., 0], pixels @ [0.299, 0.587, 0.114], atol=0.51)


def test_grey_is_repeated(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.stack([GREY] * 3, axis=2))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", channels=1), GREY[..., None])


def test_sixteen_bits_lose_the_low_byte(tmp_path):
    Image.fromarray(GREY.astype(np.uint16) * 256 + 255).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", channels=1)[..., 0], GREY)


def test_one_bit_becomes_black_and_white(tmp_path):
    Image.fromarray(GREY > 100).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", channels=1)[..., 0], (GREY > 100) * 255)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_over_white(tmp_path, mode):
    Image.new("RGBA", (3, 1), (0, 0, 0, 0)).convert(mode).save(tmp_path / "clear.png")
    Image.new("RGBA", (3, 1), (100, 100, 100, 51)).convert(mode).save(tmp_path / "half.png")
    assert (read_image(tmp_path / "clear.png") == 255).all()
    assert (read_image(tmp_path / "half.png") == round(100 * 0.2 + 255 * 0.8)).all()


@pytest.mark.parametrize("transparency", [b"\x00\xff", 0])
def test_transparent_palette_entry_is_white(tmp_path, transparency):
    image = Image.new("P", (2, 1))
    image.putpalette([9, 9, 9, 200, 30, 40])
    image.putdata([0, 1])
    image.save(tmp_path / "a.png", transparency=transparency)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], [[255, 255, 255], [200, 30, 40]])


def test_transparent_colour_is_white(tmp_path):
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    image.save(tmp_path / "a.png", transparency=(1, 2, 3))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], [[255, 255, 255], [4, 5, 6]])


def test_cmyk_jpeg_becomes_rgb(tmp_path):
    Image.new("CMYK", (16, 16), (255, 0, 0, 0)).save(tmp_path / "a.jpg")
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg")[8, 8], [0, 255, 255], atol=3)


def test_kind_is_told_from_the_content(tmp_path):
    Image.new("RGB", (3, 2), (1, 2, 3)).save(tmp_path / "really_a_png.JPEG", "PNG")
    np.testing.assert_array_equal(read_image(tmp_path / "really_a_png.JPEG")[1, 2], [1, 2, 3])


@pytest.mark.parametrize("kind", ["png", "jpg"])
@pytest.mark.parametrize(
    ("value", "upright"),
    [
        (1, lambda x: x),
        (2, lambda x: x[:, ::-1]),
        (3, lambda x: x[::-1, ::-1]),
        (4, lambda x: x[::-1]),
        (5, lambda x: x.T),
        (6, lambda x: np.rot90(x, -1)),
        (7, lambda x: np.rot90(x, 2).T),
        (8, np.rot90),
        (9, lambda x: x),
    ],
)
def test_exif_orientation(tmp_path, kind, value, upright):
    # Blocks of 16×16, so that JPEG keeps them apart.
    grey = np.kron(np.array([[0, 100, 200], [250, 50, 150]], np.uint8), np.ones((16, 16), np.uint8))
    Image.fromarray(grey).save(tmp_path / f"a.{kind}", exif=exif(value))
    image = read_image(tmp_path / f"a.{kind}", channels=1)[..., 0]
    assert image.shape == upright(grey).shape
    np.testing.assert_allclose(image.astype(int), upright(grey), atol=6)


@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_in_both_byte_orders(order):
    assert orientation(exif(6, order)) == 6


@pytest.mark.parametrize(
    "data",
    [b"", b"Exif\0\0", b"Exif\0\0MM\0*", exif(6)[:-14], exif(6, tag=0x0100), b"Exif\0\0XX" + exif(6)[8:]],
)
def test_orientation_of_damaged_exif_is_upright(data):
    assert orientation(data) == 1


def test_damaged_exif_leaks_no_warning(tmp_path):
    # A resolution whose value lies past the end: Pillow would look for it, and warn.
    block = b"Exif\0\0MM\0*" + struct.pack(">IHHHII", 8, 1, 0x011A, 5, 1, 9999)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.jpg", exif=block)
    assert read_image(tmp_path / "a.jpg").shape == (8, 8, 3)


def test_a_large_jpeg_is_decoded_smaller(tmp_path):
    Image.new("RGB", (400, 800), "red").save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg", shorter_side=50).shape == (200, 100, 3)
    assert read_image(tmp_path / "a.jpg", shorter_side=101).shape == (800, 400, 3)
    Image.new("RGB", (400, 800), "red").save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", shorter_side=50).shape == (800, 400, 3)


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_truncated_file(tmp_path, noise, kind):
    path = tmp_path / f"a.{kind}"
    Image.fromarray(noise(32, 32, 3)).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(FormatError, match=rf"a\.{kind}: damaged or truncated"):
        read_image(path)


def test_damaged_header(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe0 nothing that makes sense")
    with pytest.raises(FormatError, match=r"a\.jpg: damaged"):
        read_image(path)


def test_other_kind_of_file(tmp_path):
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png", "GIF")
    with pytest.raises(FormatError, match=r"a\.png: expected a JPEG or PNG image, but it begins with b'GIF"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(("width", "height"), [(8001, 8000), (20_000, 20_000)])
def test_too_many_pixels(tmp_path, width, height):
    # 8001×8000 is above our limit only; at 20,000×20,000 Pillow itself would warn of a bomb.
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b""))
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(FormatError, match=rf"bomb\.png: {width}×{height} pixels .* 64,000,000"):
        read_image(tmp_path / "bomb.png")


def test_unreadable_path(tmp_path):
    with pytest.raises(DataError, match=r"none\.jpg: cannot read the image: No such file"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(DataError, match="directory"):
        read_image(tmp_path)


def test_other_channels(tmp_path):
    with pytest.raises(ArgumentError, match=r"channels: expected 1 \(grey\) or 3 \(RGB\), got 4"):
        read_image(tmp_path / "a.png", channels=4)
