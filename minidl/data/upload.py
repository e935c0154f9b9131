"""Batches on their way to a GPU, one ahead of the net.

A copy from ordinary memory holds up whoever asks for it. From pinned memory, on a stream of its own, it runs beside the
kernels that work on the batch before. Two slots, each a pinned buffer and its counterpart on the device, take turns;
events keep their order:

    copied  the copy into a slot has ended: the net may read it, and the host fill the pinned buffer again
    read    the net has made its last use of the slot: the next copy into it may begin
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.arrays import Array
from minidl.devices import cupy_module

if TYPE_CHECKING:
    from minidl.data.loader import Batch


def upload(batches: Generator[Batch, None, None], device: str) -> Generator[Batch, None, None]:
    """The batches, with their images on a GPU, "cuda:N".

    Images are good until the next batch is asked for; then another copy may take their place.
    """
    cupy = cupy_module()
    with cupy.cuda.Device(int(device.removeprefix("cuda:"))), closing(batches):
        stream = cupy.cuda.Stream(non_blocking=True)
        slots = cycle((_Slot(stream), _Slot(stream)))
        ahead: tuple[_Slot, Batch] | None = None
        try:
            for batch in batches:
                slot = next(slots)
                sent = slot, replace(batch, images=slot.send(batch.images))
                if ahead:
                    yield from _handed_out(*ahead)
                ahead = sent
            if ahead:
                yield from _handed_out(*ahead)
        finally:
            stream.synchronize()  # else the last copy might write into memory that by then belongs to others


def _handed_out(slot: _Slot, batch: Batch) -> Iterator[Batch]:
    slot.wait()
    yield batch
    slot.release()


class _Slot:
    """A pinned buffer, and as much memory on the device."""

    def __init__(self, stream: Any) -> None:
        cupy = cupy_module()
        self._stream = stream
        self._host: Array = np.empty(0, np.uint8)
        self._device: Any = None
        self._copied, self._read = cupy.cuda.Event(), cupy.cuda.Event()

    def send(self, images: Array) -> Array:
        """Begin the copy: where the images will be on the device."""
        cupy = cupy_module()
        if self._host.size < images.nbytes:
            self._host = np.frombuffer(cupy.cuda.alloc_pinned_memory(images.nbytes), np.uint8, images.nbytes)
            self._device = cupy.empty(images.nbytes, np.uint8)  # which earlier work of the net may still be using
            self.release()
        self._copied.synchronize()
        host = self._host[: images.nbytes]
        host[...] = images.reshape(-1).view(np.uint8)
        self._stream.wait_event(self._read)
        target = self._device[: images.nbytes]
        target.set(host, stream=self._stream)
        self._copied.record(self._stream)
        there: Array = target.view(images.dtype).reshape(images.shape)
        return there

    def wait(self) -> None:
        """Let the net's stream wait for the copy."""
        cupy_module().cuda.get_current_stream().wait_event(self._copied)

    def release(self) -> None:
        """Say that the net's stream has been given all its work on the images."""
        self._read.record(cupy_module().cuda.get_current_stream())
