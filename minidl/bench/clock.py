"""How a device is timed, and what else it can be asked for: the host by its own clock, a GPU by events in its queue.

A call on a GPU returns as soon as its work is queued. Events are queued along with the work, and the GPU notes when it
reaches them: between two of them lies the time of the work, without that of reading the result.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minidl.bench.machine import nvidia_smi

Call = Callable[[], object]


@dataclass(frozen=True)
class Turn:
    """Seconds that a call took in the mean of several.

    seconds: by the device's own clock.
    wall: by the host's, until the device had done everything.
    launch: until the first call returned, to a queue that was empty; None where a call returns when it is done.
    """

    seconds: float
    wall: float
    launch: float | None = None


class Clock:
    """The host's.

    cache: bytes of a cache in which a call may find what the call before has left there.
    """

    cache = 0
    is_gpu = False

    def turn(self, call: Call, calls: int) -> Turn:
        """Run so many calls in a row."""
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        seconds = (time.perf_counter() - begin) / calls
        return Turn(seconds, seconds)

    def reset_peak(self) -> None:
        """Let `peak` begin anew."""

    def peak(self) -> int | None:
        """The most bytes that the library has taken of the device's memory; None for the host."""
        return None

    def describe(self) -> dict[str, Any]:
        """The GPU, as JSON can hold it; nothing for the host."""
        return {}


class GpuClock(Clock):
    """A GPU's, as a library gives access to it."""

    is_gpu = True

    def turn(self, call: Call, calls: int) -> Turn:
        """See `Clock.turn`. Launches are timed by one call, as a full queue would make the host wait."""
        self.synchronize()
        start, end = self.event(), self.event()
        begin = time.perf_counter()
        start.record()
        call()
        launch = time.perf_counter() - begin
        for _ in range(calls - 1):
            call()
        end.record()
        end.synchronize()
        wall = time.perf_counter() - begin
        return Turn(self.elapsed_ms(start, end) / 1000 / calls, wall / calls, launch)

    def synchronize(self) -> None:
        """Wait until the queue is empty."""
        raise NotImplementedError

    def event(self) -> Any:
        """A new event with `record` and `synchronize`."""
        raise NotImplementedError

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Milliseconds between two events that the GPU has reached."""
        raise NotImplementedError


class CuPyClock(GpuClock):
    """A GPU through CuPy, which from now on computes there."""

    def __init__(self, cupy: Any, device: str) -> None:
        self.cupy, self.device = cupy, cupy.cuda.Device(int(device.partition(":")[2]))
        self.device.use()
        self.cache = int(self.device.attributes["L2CacheSize"])

    def synchronize(self) -> None:
        """See `GpuClock.synchronize`."""
        self.device.synchronize()

    def event(self) -> Any:
        """See `GpuClock.event`."""
        return self.cupy.cuda.Event()

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """See `GpuClock.elapsed_ms`."""
        return float(self.cupy.cuda.get_elapsed_time(start, end))

    def reset_peak(self) -> None:
        """See `Clock.reset_peak`."""
        self.cupy.get_default_memory_pool().free_all_blocks()

    def peak(self) -> int:
        """See `Clock.peak`: what the pool holds, as it gives nothing back by itself."""
        return int(self.cupy.get_default_memory_pool().total_bytes())

    def describe(self) -> dict[str, Any]:
        """See `Clock.describe`."""
        runtime = self.cupy.cuda.runtime
        known = runtime.getDeviceProperties(self.device.id)
        return {
            "name": known["name"].decode(),
            "memory_gb": round(known["totalGlobalMem"] / 1e9, 1),
            "cache_mb": round(self.cache / 1e6, 1),
            "multiprocessors": known["multiProcessorCount"],
            "compute_capability": f"{known['major']}.{known['minor']}",
            "cuda_runtime": _version(runtime.runtimeGetVersion()),
            "cuda_driver": _version(runtime.driverGetVersion()),
            "cupy": self.cupy.__version__,
            **nvidia_smi(self.device.pci_bus_id),
        }


def _version(number: int) -> str:
    """As people write it: CUDA calls 13.0 13000."""
    return f"{number // 1000}.{number % 1000 // 10}"


class TorchClock(GpuClock):
    """A GPU through PyTorch, which from now on computes there."""

    def __init__(self, cuda: Any, device: str) -> None:
        self.cuda = cuda
        cuda.set_device(device)
        self.cache = int(cuda.get_device_properties(device).L2_cache_size)

    def synchronize(self) -> None:
        """See `GpuClock.synchronize`."""
        self.cuda.synchronize()

    def event(self) -> Any:
        """See `GpuClock.event`."""
        return self.cuda.Event(enable_timing=True)

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """See `GpuClock.elapsed_ms`."""
        return float(start.elapsed_time(end))

    def reset_peak(self) -> None:
        """See `Clock.reset_peak`."""
        self.cuda.empty_cache()
        self.cuda.reset_peak_memory_stats()

    def peak(self) -> int:
        """See `Clock.peak`: what PyTorch's pool held, which is what CuPy's can be compared with."""
        return int(self.cuda.max_memory_reserved())
