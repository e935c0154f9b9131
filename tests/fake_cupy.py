"""A stand-in for CuPy on a machine without a GPU: NumPy's arrays behind CuPy's manners.

What it refuses is the point of it. Its arrays do not mix with NumPy's, do not turn into NumPy's unless asked by
`.get()`, do not mix across devices, and are computed with on their own device only; there are no NumPy scalars, only
arrays without axes; and it has no names but those that are listed here, which CuPy has too (a test looks).

with fake_cupy.installed() as cupy:
    x = cupy.asarray(np.ones(3))  # on "cuda:0"
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import cuda_shim
import numpy as np

import minidl
from minidl.kernels import cuda

FUNCTIONS = """
    abs arange ascontiguousarray broadcast_to concatenate exp full isfinite isnan log maximum ones pad sqrt stack
    take_along_axis tanh where zeros zeros_like empty asarray
""".split()  # noqa: SIM905
CONSTANTS = "float32 float64 finfo inf int64 uint64".split()  # noqa: SIM905
METHODS = "all any argmax astype copy max mean min ravel reshape sum swapaxes view".split()  # noqa: SIM905
ATTRIBUTES = "dtype itemsize nbytes ndim shape size strides".split()  # noqa: SIM905
OPERATORS = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift".split()  # noqa: SIM905
COMPARISONS = "lt le eq ne gt ge".split()  # noqa: SIM905
UNARY = "neg pos invert abs".split()  # noqa: SIM905
GPUS = 2
MEMORY = 80 << 30  # bytes of each


class Device:
    """A GPU, and in a `with` block the current one."""

    current = 0

    def __init__(self, id: int) -> None:
        self.id = id

    def __enter__(self) -> Device:
        self.before, Device.current = Device.current, self.id
        return self

    def __exit__(self, *error: object) -> None:
        Device.current = self.before

    @property
    def mem_info(self) -> tuple[int, int]:
        return MEMORY // 4, MEMORY


class Stream:
    """Copies that are asked of it happen when somebody waits for them, from what then lies in the host's memory."""

    def __init__(self, non_blocking: bool = False) -> None:
        self.work: list[tuple[np.ndarray, np.ndarray]] = []

    def wait_event(self, event: Event) -> None:
        event.synchronize()


class Event:
    """A place in the work of a stream."""

    def __init__(self) -> None:
        self.stream: Stream | None = None

    def record(self, stream: Stream) -> None:
        self.stream = stream

    def synchronize(self) -> None:
        while self.stream and self.stream.work:
            target, values = self.stream.work.pop(0)
            target[...] = values


class OutOfMemoryError(MemoryError):
    def __init__(self, size: int, total: int) -> None:
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes).")


class Statistics(SimpleNamespace):
    """largest: bytes that one array may have. fetched: how often something came back to the host. launched: kernels."""


statistics = Statistics(largest=MEMORY, fetched=0, launched=0)


class ndarray:  # noqa: N801
    """An array on a GPU. `hidden` is for this file, and for what stands for the GPU's kernels."""

    __array_priority__ = 100

    def __init__(self, values: np.ndarray, device: int | None = None) -> None:
        if values.nbytes > statistics.largest:
            raise OutOfMemoryError(values.nbytes, MEMORY // 2)
        self.hidden = values
        self.device = Device(Device.current if device is None else device)

    def get(self) -> np.ndarray:
        statistics.fetched += 1
        return self.hidden.copy()

    @property
    def data(self) -> SimpleNamespace:
        return SimpleNamespace(ptr=self.hidden.ctypes.data)

    @property
    def flags(self) -> SimpleNamespace:
        flags = self.hidden.flags
        return SimpleNamespace(c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous)

    @property
    def T(self) -> ndarray:  # noqa: N802
        return ndarray(self.hidden.T)

    def set(self, values: np.ndarray, stream: Stream) -> None:
        stream.work.append((self.hidden, values))

    def item(self) -> Any:
        return self.get().item()

    def __float__(self) -> float:
        return float(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __bool__(self) -> bool:
        return bool(self.get())

    def __len__(self) -> int:
        return len(self.hidden)

    def __deepcopy__(self, memory: dict[int, Any]) -> ndarray:
        return ndarray(self.hidden.copy(), self.device.id)

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *args: Any, **kwargs: Any) -> Any:
        if method != "__call__":
            raise TypeError(f"{ufunc.__name__}.{method} is not supported")
        return on_device(ufunc)(*args, **kwargs)  # NumPy's scalars ask this way

    def __getitem__(self, place: Any) -> ndarray:
        return on_device(np.ndarray.__getitem__)(self, place)

    def __setitem__(self, place: Any, values: Any) -> None:
        on_device(np.ndarray.__setitem__)(self, place, values)

    __hash__ = None  # type: ignore[assignment]


def on_device(function: Any) -> Any:
    """The function for arrays of this file: refuses what CuPy refuses, and gives such arrays back."""

    def run(*args: Any, **kwargs: Any) -> Any:
        plain = [bare(value) for value in args]
        result = function(*plain, **{name: bare(value) for name, value in kwargs.items()})
        given = {id(value.hidden): value for value in (*args, *kwargs.values()) if isinstance(value, ndarray)}
        if id(result) in given:  # computed in place, or with out=
            return given[id(result)]
        return ndarray(np.asarray(result)) if isinstance(result, np.ndarray | np.generic) else result

    return run


def bare(value: Any) -> Any:
    """The NumPy array behind an array, also in lists and tuples."""
    if isinstance(value, ndarray):
        if value.device.id != Device.current:
            raise ValueError(
                f"Array device must be same as the current device: array device = {value.device.id} while current = "
                f"{Device.current}"
            )
        return value.hidden
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, list | tuple):
        return type(value)(map(bare, value))
    return value


def asarray(a: Any, dtype: Any = None, order: str | None = None) -> ndarray:
    """Of a NumPy array, of numbers, or of an array that is here or on another device."""
    if isinstance(a, ndarray):
        values = np.asarray(a.hidden, dtype, order=order)
        here = a.device.id == Device.current
        return a if values is a.hidden and here else ndarray(values if here else values.copy())
    return ndarray(np.array(a, dtype, order=order or "K", copy=True))


def empty(shape: Any, dtype: Any = float) -> ndarray:
    """Memory that nobody has written."""
    array = np.empty(shape, dtype)
    array.reshape(-1).view(np.uint8)[...] = 0xFF
    return ndarray(array)


def _fill_in() -> None:
    for name in METHODS:
        setattr(ndarray, name, on_device(getattr(np.ndarray, name)))
    for name in ATTRIBUTES:
        setattr(ndarray, name, property(lambda self, name=name: getattr(self.hidden, name)))
    names = [*COMPARISONS, *UNARY, *(prefix + name for name in OPERATORS for prefix in ("", "r", "i"))]
    for name in (f"__{name}__" for name in names if name != "imatmul"):
        setattr(ndarray, name, on_device(getattr(np.ndarray, name)))
    ndarray.__module__ = "cupy"


_fill_in()


class Runtime:
    """cupy.cuda.runtime."""

    def __init__(self) -> None:
        self.getDeviceCount = lambda: GPUS
        self.runtimeGetVersion = lambda: 13000
        self.getDeviceProperties = lambda index: {
            "name": b"Stand-in GPU", "major": 9, "minor": 0, "totalGlobalMem": MEMORY, "multiProcessorCount": 1,
        }  # fmt: skip


def module() -> ModuleType:
    """What `import cupy` gives."""
    cupy = ModuleType("cupy")
    for name in FUNCTIONS:
        setattr(cupy, name, on_device(getattr(np, name)))
    for name in CONSTANTS:
        setattr(cupy, name, getattr(np, name))
    vars(cupy).update(
        ndarray=ndarray,
        asarray=asarray,
        empty=empty,
        linalg=SimpleNamespace(norm=on_device(np.linalg.norm)),
        cuda=SimpleNamespace(
            Device=Device,
            Stream=Stream,
            Event=Event,
            alloc_pinned_memory=bytearray,
            get_current_stream=lambda stream=Stream(): stream,  # noqa: B008
            runtime=Runtime(),
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            nvrtc=SimpleNamespace(getVersion=lambda: (13, 0)),
        ),
        is_available=lambda: True,
        __version__="14.2.0",
    )
    return cupy


class Kernels(cuda_shim.Shim):
    """CUDA kernels on the stand-in's arrays, through the shim."""

    def holds(self, x: object) -> bool:
        return isinstance(x, ndarray)

    def empty(self, shape: tuple[int, ...], dtype: Any, like: ndarray) -> ndarray:
        return ndarray(super().empty(shape, dtype, like.hidden), like.device.id)

    def matmul(self, a: ndarray, b: ndarray, out: ndarray, tf32: bool) -> None:
        super().matmul(bare(a), bare(b), bare(out), tf32)

    def launch(self, instance: Any, grid: Any, block: Any, args: list[Any], shared: int) -> None:
        statistics.launched += 1
        plain = [bare(value) if isinstance(value, ndarray) else value for value in args]
        super().launch(instance, grid, block, plain, shared)


@contextmanager
def installed(kernels: str = "reference") -> Iterator[ModuleType]:
    """Inside, `import cupy` gives the stand-in. kernels: "reference", or "auto" for the GPU's own, through the shim."""
    before, cupy = sys.modules.get("cupy"), module()
    sys.modules["cupy"] = cupy
    vars(statistics).update(largest=MEMORY, fetched=0, launched=0)
    try:
        with cuda.computed_by(Kernels()), minidl.settings(kernels=kernels):
            yield cupy
    finally:
        del sys.modules["cupy"]
        if before is not None:
            sys.modules["cupy"] = before
