from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minidl.data import ArraySplit, FileSplit, Preprocessing
from minidl.data.images import resample
from minidl.errors import ArgumentError, DataError, FormatError
from minidl.ops.crop import crop

PLAIN = Preprocessing(4, 3, 1, 6, (0.0,), (1.0,), False)


def test_crop_and_mirror_by_hand():
    image = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8, 1)  # shorter side 6 already: only cut
    np.testing.assert_array_equal(PLAIN.pixels(image, top=0, left=0), image[:4, :3])
    np.testing.assert_array_equal(PLAIN.pixels(image, top=1, left=1), image[2:, 5:])
    np.testing.assert_array_equal(PLAIN.pixels(image), image[1:5, 3:6])
    assert PLAIN.pixels(image, mirrored=True)[0, :, 0].tolist() == [13, 12, 11]


def test_uniform_fractions_give_uniform_offsets():
    image = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8, 1)
    rows = [int(PLAIN.pixels(image, top=t, left=0)[0, 0, 0]) // 8 for t in np.linspace(0, 1, 300, endpoint=False)]
    np.testing.assert_array_equal(np.bincount(rows), [100, 100, 100])


def test_apply_subtracts_and_divides(noise):
    how = Preprocessing(5, 6, 3, 6, (100.0, 120.0, 140.0), (50.0, 60.0, 70.0), False)
    image = noise(6, 6, 3)
    x = how.apply(image, top=0, left=0, dtype="float64")
    np.testing.assert_allclose(x, (image[:5] - np.array([100, 120, 140])) / [50, 60, 70], rtol=1e-14)
    single = how.apply(image, top=0, left=0)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, x, rtol=1e-5)
    batch = how.normalise(np.stack([image[:5], image[1:]]), "float64")
    np.testing.assert_array_equal(batch[0], x)


@pytest.mark.parametrize(("H", "W"), [(375, 500), (500, 375), (64, 100), (8, 8), (1, 300)])
def test_resized_size_keeps_the_aspect(H, W):
    how = Preprocessing(24, 24, 1, 32, (0.0,), (1.0,), False)
    RH, RW = how.resized_size(H, W)
    assert min(RH, RW) == 32
    assert abs(RH * W / H - RW) <= 0.5 * max(1, W / H)


@pytest.mark.parametrize(("H", "W"), [(61, 83), (83, 61), (9, 11)])
@pytest.mark.parametrize(("top", "left"), [(0, 0), (0.5, 0.5), (1, 1), (0.2, 0.9)])
def test_cropping_while_resizing_is_cropping_after_it(noise, H, W, top, left):
    how = Preprocessing(24, 20, 3, 32, (0.0,) * 3, (1.0,) * 3, False)
    image = noise(H, W, 3)
    whole = resample(image, *how.resized_size(H, W))
    after = how.pixels(whole, top=top, left=left).astype(int)
    np.testing.assert_allclose(how.pixels(image, top=top, left=left), after, atol=1)


def test_shrinking_averages():
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))[..., None]
    how = Preprocessing(16, 16, 1, 16, (0.0,), (1.0,), False)
    np.testing.assert_allclose(how.pixels(stripes)[:, 1:-1], 127.5, atol=8)


def test_a_very_long_image_is_no_trouble():
    how = Preprocessing(224, 224, 1, 256, (0.0,), (1.0,), False)
    assert how.pixels(np.full((1, 1_000_000, 1), 7, np.uint8), left=1).tolist()[0][0] == [7]


def test_channels_are_converted(noise):
    grey, colour = noise(6, 6, 1), noise(6, 6, 3)
    three = Preprocessing(6, 6, 3, 6, (0.0,) * 3, (1.0,) * 3, False)
    one = Preprocessing(6, 6, 1, 6, (0.0,), (1.0,), False)
    np.testing.assert_array_equal(three.pixels(grey), np.concatenate([grey] * 3, axis=2))
    np.testing.assert_allclose(one.pixels(colour)[..., 0], colour @ [0.299, 0.587, 0.114], atol=0.51)


def test_resized_split(noise):
    split = ArraySplit(noise(5, 8, 12, 3), np.arange(5), "digits")
    how = Preprocessing(6, 7, 1, 16, (0.0,), (1.0,), False)
    resized = how.resized(split)
    assert resized.images.shape == (5, 16, 24, 3)
    assert resized.name(4) == "digits #4"
    np.testing.assert_array_equal(resized.image(2), resample(split.image(2), 16, 24))
    assert how.resized(resized) is resized


def test_measured_on_against_numpy(noise):
    images = noise(7, 10, 8, 3) // np.array([1, 2, 3], np.uint8)
    how = Preprocessing.measured_on(ArraySplit(images, np.zeros(7, int)), height=6, width=8, resize=8, mirror=True)
    seen = images[:, 2:8].reshape(-1, 3)  # the centre: (10 − 6) / 2 rows off the top
    np.testing.assert_allclose(how.mean, seen.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(how.std, seen.std(axis=0), rtol=1e-12)
    assert (how.height, how.width, how.channels, how.resize, how.mirror) == (6, 8, 3, 8, True)


def test_measured_on_a_sample(noise):
    images = noise(10, 8, 8, 1)
    split = ArraySplit(images, np.zeros(10, int))
    how = Preprocessing.measured_on(split, height=8, width=8, resize=8, channels=1, limit=4)
    np.testing.assert_allclose(how.mean, images[[0, 2, 5, 7]].mean(), rtol=1e-12)


def test_a_constant_channel_is_not_divided_by_zero():
    split = ArraySplit(np.full((3, 8, 8, 1), 9, np.uint8), np.zeros(3, int))
    how = Preprocessing.measured_on(split, height=8, width=8, channels=1)
    assert (how.mean, how.std, how.resize) == ((9.0,), (1.0,), 8)


def test_measuring_past_a_bad_image(tmp_path: Path):
    Image.new("RGB", (8, 8), (30, 40, 50)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    split = FileSplit([tmp_path / "a.png", tmp_path / "b.png"], [0, 0])
    with pytest.raises(FormatError, match=r"b\.png"):
        Preprocessing.measured_on(split, height=8, width=8)
    how = Preprocessing.measured_on(split, height=8, width=8, on_bad_image="skip")
    assert how.mean == (30.0, 40.0, 50.0)
    with pytest.raises(DataError, match="no image to measure mean and deviation on: 1 tried, of 1"):
        Preprocessing.measured_on(FileSplit(split.paths[1:], [0]), height=8, width=8, on_bad_image="skip")
    with pytest.raises(DataError, match="0 tried, of 0"):
        Preprocessing.measured_on(FileSplit([], []), height=8, width=8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 0}, "height: expected a positive integer, got 0"),
        ({"width": 3.0}, r"width: .* got 3\.0"),
        ({"resize": True}, "resize: .* got True"),
        ({"resize": 3}, "resize: expected at least 4, since 4×3 is cut .* got 3"),
        ({"channels": 4}, "channels: expected 1"),
        ({"mean": (1.0, 2.0)}, r"mean: expected 1 finite number\(s\), got \(1\.0, 2\.0\)"),
        ({"mean": (float("nan"),)}, r"mean: .* got \(nan,\)"),
        ({"mean": 3.0}, "mean: "),
        ({"std": (0.0,)}, r"std: expected 1 finite number\(s\) above 0, got \(0\.0,\)"),
        ({"std": ("1",)}, "std: "),
        ({"mirror": 1}, "mirror: expected True or False, got 1"),
    ],
)
def test_values_that_make_no_sense(change, message):
    with pytest.raises(ArgumentError, match=message):
        replace(PLAIN, **change)
    stored = json.loads(json.dumps({**PLAIN.to_dict(), **change}))
    with pytest.raises(FormatError, match=r"preprocessing: \w+: expected"):
        Preprocessing.from_dict(stored)


def test_json_round_trip():
    how = Preprocessing(224, 227, 3, 256, (0.1, 1 / 3, 2.0), (1e-3, 70.0, 3.3333333333333335), True)
    assert Preprocessing.from_dict(json.loads(json.dumps(how.to_dict()))) == how


def test_json_with_other_fields():
    values = PLAIN.to_dict()
    with pytest.raises(FormatError, match=r"expected the fields height, .*, mirror, got height, .*, colour"):
        Preprocessing.from_dict({**values, "colour": 1})
    del values["std"]
    with pytest.raises(FormatError, match="expected the fields"):
        Preprocessing.from_dict(values)
    with pytest.raises(FormatError, match=r"expected the fields .* got \[1\]"):
        Preprocessing.from_dict([1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_op_crop_gives_the_same_bits(noise, channels, dtype):
    mean, std = (123.675, 116.28, 103.53)[:channels], (58.395, 57.12, 57.375)[:channels]
    how = Preprocessing(5, 4, channels, 7, mean, std, True)
    images = np.stack([noise(7, 9, channels) for _ in range(6)])
    places = [(0.0, 0.0, False), (1.0, 1.0, True), (0.5, 0.5, False), (0.2, 0.9, True), (0.9, 0.4, True), (0, 1, False)]
    expected = [
        how.apply(x, top=t, left=l, mirrored=m, dtype=dtype) for x, (t, l, m) in zip(images, places, strict=True)
    ]
    offsets = np.array([(min(int(3 * t), 2), min(int(6 * l), 5)) for t, l, _ in places])
    mirrored = np.array([m for *_, m in places])
    y = crop(images, offsets, mirrored, np.array(mean, dtype), np.array(std, dtype), (5, 4))
    np.testing.assert_array_equal(y, expected, strict=True)
