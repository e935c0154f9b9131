"""Which array library holds an array, and how arrays move between devices.

This is the only module that knows of both NumPy and CuPy. All other code asks `array_module(x)` and uses what it
gets as `xp`, so that one text runs on both.
"""

from __future__ import annotations

import re
from typing import Any, TypeAlias

import numpy as np

from minidl.errors import ArgumentError, DeviceError, DTypeError

# CuPy is optional, so its arrays cannot be named in a type; both libraries' arrays behave as this one.
Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
NHWC: TypeAlias = Array  # (samples, height, width, channels)
DTypeLike: TypeAlias = Any

FLOATS = ("float32", "float64")


def is_array(x: object) -> bool:
    """Whether x is a NumPy or a CuPy array."""
    return isinstance(x, np.ndarray) or type(x).__module__.partition(".")[0] == "cupy"


def array_module(x: object) -> Any:
    """The library that holds x: `numpy`, or `cupy` for an array on a GPU.

    >>> array_module(np.zeros(3)).__name__
    'numpy'
    """
    if isinstance(x, np.ndarray) or type(x).__module__.partition(".")[0] != "cupy":
        return np
    import cupy

    return cupy


def float_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """The dtype, when it is one that the engine computes in.

    >>> float_dtype("float64")
    dtype('float64')

    Raises: DTypeError for anything but float32 and float64.
    """
    try:
        result = np.dtype(dtype)
    except TypeError as error:
        raise DTypeError(f"dtype: expected one of {', '.join(FLOATS)}, got {dtype!r}") from error
    if result.name not in FLOATS:
        raise DTypeError(f"dtype: expected one of {', '.join(FLOATS)}, got {result.name}")
    return result


def device_of(x: Array) -> str:
    """Where x lives: `"cpu"`, or `"cuda:0"`, `"cuda:1"`, …

    >>> device_of(np.zeros(3))
    'cpu'
    """
    return "cpu" if isinstance(x, np.ndarray) else f"cuda:{x.device.id}"


def parse_device(device: str) -> str:
    """Normalise a device name to `"cpu"` or `"cuda:N"`, after checking that it can be used.

    >>> parse_device("cpu")
    'cpu'

    Raises: ArgumentError for a malformed name; DeviceError, with the reason, where no such GPU is usable.
    """
    if device == "cpu":
        return device
    match = re.fullmatch(r"cuda(?::(\d+))?", device)
    if match is None:
        raise ArgumentError(f"device: expected 'cpu', 'cuda' or 'cuda:N', got {device!r}")
    index = int(match[1] or 0)
    try:
        import cupy
    except ImportError as error:
        raise DeviceError(
            f"device {device!r}: CuPy is not installed; install it with pip install 'minidl[gpu13]' "
            "(or gpu12 for a CUDA 12 driver), or use device 'cpu'"
        ) from error
    if not cupy.is_available():
        raise DeviceError(f"device {device!r}: CuPy is installed but finds no usable GPU or driver; use device 'cpu'")
    count = int(cupy.cuda.runtime.getDeviceCount())
    if index >= count:
        raise DeviceError(f"device {device!r}: this machine has {count} GPU(s), numbered from 0")
    return f"cuda:{index}"


def to_device(x: Array, device: str) -> Array:
    """x on the device; x itself where it already lives there."""
    device = parse_device(device)
    if device_of(x) == device:
        return x
    if device == "cpu":
        return to_host(x)
    import cupy

    with cupy.cuda.Device(int(device.removeprefix("cuda:"))):
        result: Array = cupy.asarray(x)
    return result


def to_host(x: Array) -> Array:
    """x as a NumPy array; x itself where it is one."""
    if isinstance(x, np.ndarray):
        return x
    host: Array = x.get()
    return host
