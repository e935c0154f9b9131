from __future__ import annotations

import gc
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from minidl.data import ArraySplit, Batch, Loader, Preprocessing, Split, load, read_image
from minidl.errors import DataError, FormatError
from minidl.random import Key

HOW = Preprocessing(6, 5, 1, 8, (10.0,), (2.0,), True)


class Scripted(Split):
    """Images of which some are bad and some take a while; counts how many were begun."""

    def __init__(self, count: int, bad: tuple[int, ...] = (), slow_from: int | None = None) -> None:
        super().__init__(np.arange(count))
        self.bad, self.slow_from, self.begun = bad, slow_from, 0

    def image(self, i: int, *, shorter_side: int | None = None) -> np.ndarray:
        self.begun += 1
        if self.slow_from is not None and i >= self.slow_from:
            time.sleep(0.02)
        if i in self.bad:
            raise FormatError(f"{self.name(i)}: damaged")
        return np.full((8, 8, 1), i, np.uint8)

    def name(self, i: int) -> str:
        return f"image-{i}.jpg"

    def wait_for(self, begun: int) -> None:
        deadline = time.monotonic() + 10
        while self.begun < begun and time.monotonic() < deadline:
            time.sleep(0.001)


@pytest.fixture
def split(noise) -> ArraySplit:
    return ArraySplit(noise(23, 8, 9, 1), np.arange(23) % 7)


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert [t.name for t in threading.enumerate() if t.name.startswith("minidl-loader")] == []


def same(batches: list[Batch], others: list[Batch]) -> bool:
    return len(batches) == len(others) and all(
        a.index == b.index
        and np.array_equal(a.images, b.images)
        and np.array_equal(a.labels, b.labels)
        and np.array_equal(a.positions, b.positions)
        for a, b in zip(batches, others, strict=True)
    )


def test_evaluation_is_in_order_and_centred(split):
    loader = Loader(split, HOW, 10, train=False)
    batches = list(loader.epoch())
    assert [batch.images.shape for batch in batches] == [(10, 6, 5, 1), (10, 6, 5, 1), (3, 6, 5, 1)]
    assert len(loader) == 3
    assert batches[0].images.dtype == np.float32
    assert batches[0].labels.dtype == np.int64
    np.testing.assert_array_equal(np.concatenate([b.positions for b in batches]), np.arange(23))
    np.testing.assert_array_equal(np.concatenate([b.labels for b in batches]), split.labels)
    for batch in batches:
        for x, i in zip(batch.images, batch.positions, strict=True):
            np.testing.assert_array_equal(x, HOW.apply(split.image(i)))
    assert same(list(loader.epoch(5)), batches)


def test_training_shows_every_image_once_cropped_and_mirrored(split):
    loader = Loader(split, HOW, 10, train=True, key=Key(3), dtype="float64")
    seen = []
    for epoch in range(5):
        batches = list(loader.epoch(epoch))
        positions = np.concatenate([batch.positions for batch in batches])
        assert sorted(positions) == list(range(23))
        assert sorted(positions) != list(positions)
        for batch in batches:
            assert batch.images.dtype == np.float64
            np.testing.assert_array_equal(batch.labels, split.labels[batch.positions])
            seen += [crop_of(split.image(i), x) for x, i in zip(batch.images, batch.positions, strict=True)]
    for axis, choices in enumerate([range(3), range(5), (False, True)]):
        assert {crop[axis] for crop in seen} == set(choices)
        assert max(np.bincount([crop[axis] for crop in seen])) < 115 * 1.5 / len(choices)


def crop_of(image: np.ndarray, x: np.ndarray) -> tuple[int, int, bool]:
    """Which of the 3×5 crops of 6×5 from 8×9, mirrored or not, became x."""
    (crop,) = [
        (top, left, mirrored)
        for top in range(3)
        for left in range(5)
        for mirrored in (False, True)
        if np.array_equal(x, (image[top : top + 6, left : left + 5][:, :: -1 if mirrored else 1] - 10.0) / 2)
    ]
    return crop


def test_mirroring_only_where_it_is_allowed(split):
    how = Preprocessing(8, 9, 1, 9, (0.0,), (1.0,), False)
    square = ArraySplit(split.images.repeat(2, axis=1)[:, :9], split.labels)  # nothing to crop sideways
    for batch in Loader(square, how, 23, train=True, key=Key(0)).epoch(0):
        for x, i in zip(batch.images, batch.positions, strict=True):
            assert any(np.array_equal(x, square.image(i)[top : top + 8]) for top in (0, 1))


def test_an_epoch_follows_from_key_and_number(split):
    def epoch(seed: int, number: int, **options: int) -> list[Batch]:
        return list(Loader(split, HOW, 4, train=True, key=Key(seed), **options).epoch(number))

    assert same(epoch(1, 2), epoch(1, 2))
    assert same(epoch(1, 2), epoch(1, 2, prefetch=0))
    assert same(epoch(1, 2), epoch(1, 2, prefetch=1))
    for other in (epoch(1, 3), epoch(2, 2)):
        assert not np.array_equal(other[0].positions, epoch(1, 2)[0].positions)


def test_crops_change_from_epoch_to_epoch(split):
    def of_image_0(epoch: int) -> np.ndarray:
        batches = Loader(split, HOW, 23, train=True, key=Key(0)).epoch(epoch)
        return next(b.images[list(b.positions).index(0)] for b in batches)

    seen = [of_image_0(epoch) for epoch in range(6)]
    assert any(not np.array_equal(seen[0], other) for other in seen[1:])


def test_what_an_image_becomes_does_not_depend_on_the_batch_size(split):
    by_three, by_ten = (
        np.concatenate([batch.images for batch in Loader(split, HOW, size, train=True, key=Key(0)).epoch(1)])
        for size in (3, 10)
    )
    np.testing.assert_array_equal(by_three, by_ten)


@pytest.mark.parametrize("start", range(7))
def test_starting_in_the_middle(split, start):
    loader = Loader(split, HOW, 4, train=True, key=Key(1))
    assert same(list(loader.epoch(2, start)), list(loader.epoch(2))[start:])


def test_small_images_in_memory_are_resized_once(noise, monkeypatch):
    split = ArraySplit(noise(9, 8, 8, 1), np.arange(9))
    how = Preprocessing(14, 14, 1, 16, (0.0,), (1.0,), False)
    cached = list(Loader(split, how, 4, train=True, key=Key(0)).epoch(0))
    monkeypatch.setattr("minidl.data.loader.CACHE_BYTES", 9 * 16 * 16 - 1)
    loader = Loader(split, how, 4, train=True, key=Key(0))
    fresh = list(loader.epoch(0))
    assert loader._source() is split
    for a, b in zip(cached, fresh, strict=True):
        np.testing.assert_array_equal(a.positions, b.positions)
        np.testing.assert_allclose(a.images, b.images, atol=1)


def test_bad_image_raises_with_its_name():
    batches = Loader(Scripted(12, bad=(5,)), HOW, 2, train=False).epoch()
    assert [next(batches).index, next(batches).index] == [0, 1]
    with pytest.raises(FormatError, match=r"image-5\.jpg: damaged"):
        next(batches)


def test_bad_images_are_skipped_and_named():
    loader = Loader(Scripted(12, bad=(1, 4, 5)), HOW, 2, train=False, on_bad_image="skip")
    batches = list(loader.epoch())
    assert [(b.index, b.positions.tolist()) for b in batches] == [
        (0, [0]),
        (1, [2, 3]),
        (3, [6, 7]),
        (4, [8, 9]),
        (5, [10, 11]),
    ]
    assert [len(b.images) for b in batches] == [1, 2, 2, 2, 2]
    assert [b.labels.tolist() for b in batches] == [b.positions.tolist() for b in batches]
    for batch in batches:
        np.testing.assert_array_equal(batch.images[:, 0, 0, 0] * 2 + 10, batch.positions)
    assert loader.skipped == {f"image-{i}.jpg": f"image-{i}.jpg: damaged" for i in (1, 4, 5)}
    list(loader.epoch(1))
    assert len(loader.skipped) == 3


def test_skipped_is_counted_when_its_batch_is_reached():
    split = Scripted(12, bad=(1, 11))
    loader = Loader(split, HOW, 2, train=False, on_bad_image="skip", prefetch=8)
    batches = loader.epoch()
    next(batches)
    split.wait_for(12)
    assert list(loader.skipped) == ["image-1.jpg"]
    batches.close()


def test_files(write_classes):
    photos = write_classes({"cat": 6, "dog": 6})
    dataset = load(f"folder:{photos}")
    how = Preprocessing.measured_on(dataset.train, height=8, width=8, mirror=True)
    (Path(dataset.train.name(3))).write_bytes(b"\x89PNG\r\n\x1a\n")
    Path(dataset.train.name(7)).unlink()
    loader = Loader(dataset.train, how, 4, train=False, on_bad_image="skip")
    positions = np.concatenate([b.positions for b in loader.epoch()])
    assert positions.tolist() == [0, 1, 2, 4, 5, 6, 8, 9]
    assert list(loader.skipped) == [dataset.train.name(3), dataset.train.name(7)]
    with pytest.raises(FormatError, match=r"\.png: damaged"):
        list(Loader(dataset.train, how, 4, train=False).epoch())
    with pytest.raises(DataError, match=r"\.png: cannot read the image"):
        list(Loader(dataset.train, how, 4, train=False).epoch(start=1))
    first = next(iter(Loader(dataset.train, how, 2, train=False).epoch()))
    np.testing.assert_array_equal(first.images[1], how.apply(read_image(dataset.train.name(1), shorter_side=8)))


def test_only_a_few_batches_are_read_ahead():
    split = Scripted(100)
    batches = Loader(split, HOW, 2, train=False, prefetch=3).epoch()
    next(batches)
    split.wait_for(2 * 4)
    time.sleep(0.02)  # time enough to read more, if it were allowed
    assert split.begun == 2 * 4
    batches.close()


def test_without_prefetch_a_batch_is_read_when_asked_for():
    split = Scripted(10)
    batches = Loader(split, HOW, 2, train=False, prefetch=0).epoch()
    assert split.begun == 0
    next(batches)
    assert split.begun == 2
    batches.close()


def test_leaving_early_stops_the_threads_at_once():
    split = Scripted(500, slow_from=50)
    for _ in Loader(split, HOW, 50, train=False, prefetch=2).epoch():
        break
    assert split.begun < 100  # not even the batch that was being read was finished


def test_an_interrupt_in_the_loop_stops_the_threads():
    split = Scripted(500, slow_from=50)

    def train() -> None:
        for _ in Loader(split, HOW, 50, train=False, prefetch=2).epoch():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
    gc.collect()
    assert split.begun < 150


def test_an_empty_split():
    loader = Loader(Scripted(0), HOW, 4, train=True, key=Key(0))
    assert (len(loader), list(loader.epoch(0))) == (0, [])
