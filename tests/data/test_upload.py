"""The order of copies and reads on the way to a GPU, told by a stand-in for CuPy that writes down what it is asked."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from minidl.data.loader import Batch
from minidl.data.upload import upload


class DeviceArray(np.ndarray):
    """Memory of the device: the copy into it happens only when the stream is waited for."""

    def set(self, host, stream):
        stream.queue.append((self, host))
        stream.events.append("copy")


class Event:
    def __init__(self):
        self.stream = None

    def record(self, stream):
        stream.events.append(("record", id(self)))
        self.stream = stream

    def synchronize(self):
        if self.stream:
            self.stream.drain()


class Stream:
    def __init__(self, non_blocking=False):
        self.queue, self.events = [], []

    def wait_event(self, event):
        self.events.append(("wait", id(event)))
        if event.stream and event.stream is not self:
            event.stream.drain()

    def synchronize(self):
        self.events.append("synchronize")
        self.drain()

    def drain(self):
        for target, host in self.queue:
            target[...] = host
        self.queue.clear()


@pytest.fixture
def streams(monkeypatch):
    made, current = [], Stream()
    cuda = SimpleNamespace(
        Device=lambda n: nullcontext(),
        Stream=lambda **options: made.append(Stream(**options)) or made[-1],
        Event=Event,
        alloc_pinned_memory=lambda size: bytearray(size),
        get_current_stream=lambda: current,
    )
    empty = lambda size, dtype: np.empty(size, dtype).view(DeviceArray)  # noqa: E731
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda, empty=empty))
    return SimpleNamespace(made=made, current=current)


def batches(*sizes):
    for index, n in enumerate(sizes):
        images = np.full((n, 2, 2, 3), index, np.uint8)
        yield Batch(index, images, np.arange(n), np.arange(n))


def test_each_batch_arrives_whole(streams):
    seen = []
    for batch in upload(batches(4, 4, 4, 6, 1), "cuda:0"):
        assert isinstance(batch.images, DeviceArray)
        assert (batch.images == batch.index).all()
        seen.append((batch.index, batch.images.shape))
    assert seen == [(0, (4, 2, 2, 3)), (1, (4, 2, 2, 3)), (2, (4, 2, 2, 3)), (3, (6, 2, 2, 3)), (4, (1, 2, 2, 3))]


def test_one_batch_is_on_its_way_while_another_is_read(streams):
    uploaded = upload(batches(4, 4, 4), "cuda:0")
    first = next(uploaded)
    (copies,) = streams.made
    assert copies.events.count("copy") == 2
    assert (first.images == 0).all()
    next(uploaded)
    assert copies.events.count("copy") == 3


def test_a_copy_waits_until_its_slot_was_read(streams):
    for _ in upload(batches(4, 4, 4, 4), "cuda:0"):
        streams.current.events.append("step")
    (copies,) = streams.made
    released = [event for event in streams.current.events if event[0] == "record"]
    waited = [event for event in copies.events if event[0] == "wait"]
    assert len(waited) == 4  # before each copy
    # Copy k + 2 waits for the event that is recorded after step k.
    steps = [k for k, event in enumerate(streams.current.events) if event == "step"]
    for k, event in enumerate(waited[2:]):
        after = streams.current.events[steps[k] + 1]
        assert after == ("record", event[1])
    assert len(released) == 4 + 2  # and once when each slot is made


def test_closing_closes_the_source(streams):
    source = batches(4, 4, 4)
    uploaded = upload(source, "cuda:0")
    next(uploaded)
    uploaded.close()
    with pytest.raises(StopIteration):
        next(source)


def test_no_copy_outlives_its_memory(streams):
    uploaded = upload(batches(4, 4, 4), "cuda:0")
    next(uploaded)
    (copies,) = streams.made
    assert "synchronize" not in copies.events
    uploaded.close()
    assert copies.events[-1] == "synchronize"


def test_no_batch(streams):
    assert list(upload(batches(), "cuda:0")) == []
