"""Batches, prepared in the background while the net computes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from minidl.accelerate import num_threads
from minidl.arrays import NHWC, Array, DTypeLike, array_module, float_dtype
from minidl.data.dataset import ArraySplit, Labels, Split
from minidl.data.preprocess import Preprocessing, check_on_bad_image
from minidl.data.upload import upload
from minidl.devices import parse_device
from minidl.errors import ArgumentError, DataError, FormatError, expect_a, expect_flag, expect_integer
from minidl.ops.crop import crop
from minidl.random import Key

CACHE_BYTES = 256 << 20


@dataclass(frozen=True, eq=False)
class Batch:
    """Images (N, H, W, C) as the net takes them, and their labels (N,).

    `index` is the batch's number within the epoch, `positions` (N,) the images' places in the split.
    """

    index: int
    images: NHWC
    labels: Labels
    positions: NDArray[np.int64]


class _Plan(NamedTuple):
    """All random choices of an epoch. All but the order are indexed by image, so nothing depends on when it is read."""

    order: NDArray[np.int64]
    top: NDArray[np.float64]
    left: NDArray[np.float64]
    mirrored: NDArray[np.bool_]


class Loader:
    """A split in batches of `batch_size`, the last one smaller where the split does not divide.

    With `train=True` each epoch has its own order, crops and mirroring, drawn from `key` and the epoch's number
    alone: any epoch can be repeated, or continued in its middle, exactly. With `train=False` the order is the
    split's and the crop is the centre.

    `prefetch` batches are kept ready or in the making by background threads (by default one more than there are
    processors, at most 8); with 0 a batch is made when it is asked for.

    With `device` "cuda:N" the images are on that GPU, copied there one batch ahead as uint8 and normalised there; they
    are good until the next batch is asked for.

    An image that cannot be read raises, or with `on_bad_image="skip"` is left out of its batch, which is then smaller;
    a batch with no image left is not yielded. The others keep their `index`, so count steps by that. `skipped` maps
    the name of each image left out so far to the reason.

    Raises: ArgumentError for a batch_size below 1, a negative prefetch, training without a key, and for what is no
    split, preprocessing or key; UnknownNameError for another `on_bad_image`; DTypeError for a dtype other than those of
    floats; DeviceError for a device that cannot be used.
    """

    def __init__(
        self,
        split: Split,
        preprocessing: Preprocessing,
        batch_size: int,
        *,
        train: bool,
        key: Key | None = None,
        dtype: DTypeLike = "float32",
        on_bad_image: str = "raise",
        device: str = "cpu",
        prefetch: int | None = None,
    ) -> None:
        expect_a(Split, "Loader", "split", split)
        expect_a(Preprocessing, "Loader", "preprocessing", preprocessing)
        batch_size = expect_integer("Loader", "batch_size", batch_size)
        train = expect_flag("Loader", "train", train)
        if key is not None:
            expect_a(Key, "Loader", "key", key)
        elif train:
            raise ArgumentError("key: training draws order, crops and mirroring from one; pass key=Key(seed)")
        processors = num_threads()
        prefetch = min(processors + 1, 8) if prefetch is None else expect_integer("Loader", "prefetch", prefetch, 0)
        check_on_bad_image(on_bad_image)
        self.split = split
        self.preprocessing = preprocessing
        self.batch_size = batch_size
        self.key = key if train else None
        self.dtype = float_dtype(dtype)
        self.on_bad_image = on_bad_image
        self.device = parse_device(device)
        self.prefetch = prefetch
        self.skipped: dict[str, str] = {}
        self._threads = max(1, min(prefetch, processors))
        self._resized: Split | None = None

    def __len__(self) -> int:
        return -(-len(self.split) // self.batch_size)

    def epoch(self, epoch: int = 0, start: int = 0) -> Generator[Batch, None, None]:
        """The batches of an epoch, from batch number `start` on.

        Closing the generator stops the threads at once. Leaving the loop by `break` does so by itself; where an
        exception may pass, hold it in `contextlib.closing`, since the traceback would keep it alive.

        Raises: ArgumentError for a negative epoch and a start outside 0 … len(self); while iterating, DataError or
        FormatError naming an image that cannot be read.
        """
        epoch, start = expect_integer("", "epoch", epoch, 0), expect_integer("", "start", start, 0)
        if start > len(self):
            raise ArgumentError(f"start: expected from 0 to {len(self)}, the number of batches, got {start}")
        batches = self._batches(self._plan(epoch), start)
        return batches if self.device == "cpu" else self._on_gpu(batches)

    def _on_gpu(self, batches: Generator[Batch, None, None]) -> Generator[Batch, None, None]:
        with closing(upload(batches, self.device)) as uploaded:
            for batch in uploaded:
                yield replace(batch, images=self._normalised(batch.images))

    def _normalised(self, pixels: Array) -> Array:
        """What `Preprocessing.normalise` computes, on a GPU in one pass: all of each image is cut out of it."""
        how, xp, N = self.preprocessing, array_module(pixels), len(pixels)
        mean, std = (xp.asarray(np.array(numbers, self.dtype)) for numbers in (how.mean, how.std))
        places, mirrored = xp.zeros((N, 2), xp.int64), xp.zeros(N, bool)
        return crop(pixels, places, mirrored, mean, std, (how.height, how.width))

    def _plan(self, epoch: int) -> _Plan:
        N = len(self.split)
        if self.key is None:
            return _Plan(np.arange(N), np.full(N, 0.5), np.full(N, 0.5), np.zeros(N, bool))
        order = self.key.at("order").at(epoch).generator().permutation(N)
        draw = self.key.at("augment").at(epoch).generator()
        top, left, coin = draw.random(N), draw.random(N), draw.random(N)
        return _Plan(order, top, left, (coin < 0.5) & self.preprocessing.mirror)

    def _batches(self, plan: _Plan, start: int) -> Generator[Batch, None, None]:
        source = self._source()
        stop = threading.Event()
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="minidl-loader")
        pending: deque[Future[tuple[Batch, dict[str, str]]]] = deque()
        try:
            for index in range(start, len(self)):
                pending.append(pool.submit(self._read, source, plan, index, stop))
                if len(pending) > self.prefetch:
                    yield from self._finished(pending.popleft())
            while pending:
                yield from self._finished(pending.popleft())
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)

    def _source(self) -> Split:
        """The split, with small images resized once instead of in every epoch."""
        if self._resized is None:
            self._resized = self.split
            if isinstance(self.split, ArraySplit):
                N, H, W, C = self.split.images.shape
                if N * C * np.prod(self.preprocessing.resized_size(H, W)) <= CACHE_BYTES:
                    self._resized = self.preprocessing.resized(self.split)
        return self._resized

    def _read(self, source: Split, plan: _Plan, index: int, stop: threading.Event) -> tuple[Batch, dict[str, str]]:
        """One batch, and the images left out of it with the reasons. Runs in a background thread."""
        how = self.preprocessing
        members = plan.order[index * self.batch_size : (index + 1) * self.batch_size]
        pixels = np.empty((len(members), how.height, how.width, how.channels), np.uint8)
        good: list[int] = []
        bad: dict[str, str] = {}
        for i in members:
            if stop.is_set():  # nobody waits for this batch any more
                break
            try:
                image = source.image(i, shorter_side=how.resize)
            except (DataError, FormatError) as error:
                if self.on_bad_image == "raise":
                    raise
                bad[source.name(i)] = str(error)
                continue
            pixels[len(good)] = how.pixels(image, top=plan.top[i], left=plan.left[i], mirrored=plan.mirrored[i])
            good.append(i)
        positions = np.array(good, np.int64)
        images = pixels[: len(good)]
        if self.device == "cpu":
            images = how.normalise(images, self.dtype)
        return Batch(index, images, source.labels[positions], positions), bad

    def _finished(self, future: Future[tuple[Batch, dict[str, str]]]) -> Iterator[Batch]:
        batch, bad = future.result()
        self.skipped.update(bad)
        if len(batch.labels):
            yield batch
