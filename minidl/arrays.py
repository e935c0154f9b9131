"""Which array library holds an array, and how arrays move between devices.

This is the only module that knows of both NumPy and CuPy. All other code asks `array_module(x)` and uses what it
gets as `xp`, so that one text runs on both.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from numbers import Real
from typing import Any, TypeAlias

import numpy as np

from minidl.devices import cupy_module, parse_device
from minidl.errors import ArgumentError, DeviceError, DTypeError, told

# CuPy is optional, so its arrays cannot be named in a type; both libraries' arrays behave as this one.
Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
NHWC: TypeAlias = Array  # (samples, height, width, channels)
DTypeLike: TypeAlias = Any

FLOATS = ("float32", "float64")
HALVES = ("float16", "bfloat16")


def is_array(x: Any) -> bool:
    """Whether x is a plain NumPy or CuPy array: not np.matrix, whose * is another, and no masked array, whose mask a
    kernel would not see.

    >>> is_array(np.zeros(3)), is_array(np.ma.zeros(3)), is_array([0.0])
    (True, False, False)
    """
    return _holds_arrays(type(x))  # type: ignore[arg-type]


def has_float_dtype(x: Array) -> bool:
    """Whether the engine computes in the array's dtype: one of FLOATS and HALVES, in the byte order of the machine."""
    return dtype_name(x.dtype) in FLOATS + HALVES and x.dtype.isnative


def is_half(x: object) -> bool:
    """Whether x is an array of float16 or bfloat16.

    >>> is_half(np.ones(3, np.float16)), is_half(np.ones(3))
    (True, False)
    """
    return is_array(x) and dtype_name(x.dtype) in HALVES  # type: ignore[attr-defined]


# What is asked of every array many times a step is remembered: a GPU waits for Python.
@cache
def _holds_arrays(kind: type) -> bool:
    return kind in (np.ndarray, np.memmap) or _is_cupy(kind)


@cache
def _is_cupy(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "cupy"


@cache
def dtype_name(dtype: np.dtype[Any]) -> str:
    """NumPy's name of a dtype."""
    return dtype.name


def as_array(name: str, values: Any, like: Array) -> Array:
    """An array as it is, or nested lists of numbers as one, where another array lives.

    Raises: ArgumentError naming the argument, where it is neither; DeviceError for an array that lives elsewhere.
    """
    if not is_array(values) and (isinstance(values, str | bytes) or not isinstance(values, Sequence | Real)):
        raise ArgumentError(f"{name}: expected an array or lists of numbers, got {told(values)}")
    require_device(name, values, like)
    try:
        array: Array = values if is_array(values) else np.asarray(values)
    except ValueError as error:  # rows of different lengths
        raise ArgumentError(f"{name}: expected rows of equal length, got {told(values)}") from error
    return to_device(array, device_of(like))


def require_array(name: str, x: object) -> None:
    """Raises: ArgumentError naming the argument, where x is no plain array."""
    if not is_array(x):
        raise ArgumentError(f"{name}: expected a plain NumPy or CuPy array, got {told(x)}")


def require_device(name: str, x: Any, like: Array) -> None:
    """Raises: DeviceError naming the argument, where x is an array on another device than its partner."""
    if is_array(x) and device_of(x) != device_of(like):
        raise DeviceError(
            f"{name}: expected an array on {device_of(like)}, got one on {device_of(x)}; "
            f"move it: to_device(…, '{device_of(like)}')"
        )


def array_module(x: Any) -> Any:
    """The library that holds x: `numpy`, or `cupy` for an array on a GPU.

    >>> array_module(np.zeros(3)).__name__
    'numpy'
    """
    return cupy_module() if _is_cupy(type(x)) else np  # type: ignore[arg-type]


def float_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """The dtype, when it is one that the engine computes in.

    >>> float_dtype("float64")
    dtype('float64')

    Raises: DTypeError for anything but FLOATS and HALVES, and for bfloat16 where ml_dtypes is not installed.
    """
    if isinstance(dtype, str) and dtype == "bfloat16":
        try:
            import ml_dtypes
        except ImportError as error:
            raise DTypeError("dtype: NumPy knows bfloat16 through ml_dtypes only; pip install ml_dtypes") from error
        dtype = ml_dtypes.bfloat16
    try:
        result = None if dtype is None else np.dtype(dtype)  # NumPy takes None for float64
    except (TypeError, ValueError):
        result = None
    if result is None or result.name not in FLOATS + HALVES or not result.isnative:
        got = repr(dtype) if result is None else result.name if result.isnative else f"{result.str} of foreign bytes"
        raise DTypeError(f"dtype: expected one of {', '.join(FLOATS + HALVES)}, got {got}")
    return result


def device_of(x: Array) -> str:
    """Where x lives: `"cpu"`, or `"cuda:0"`, `"cuda:1"`, …

    >>> device_of(np.zeros(3))
    'cpu'

    Raises: ArgumentError for what is no array.
    """
    require_array("x", x)
    return "cpu" if isinstance(x, np.ndarray) else f"cuda:{x.device.id}"


def to_device(x: Array, device: str) -> Array:
    """x on the device; x itself where it already lives there.

    Raises: ArgumentError for what is no array, and as `parse_device`.
    """
    device = parse_device(device)
    if device_of(x) == device:
        return x
    if device == "cpu":
        return to_host(x)
    cupy = cupy_module()
    with cupy.cuda.Device(int(device.removeprefix("cuda:"))):
        result: Array = cupy.asarray(x)
    return result


def to_host(x: Array) -> Array:
    """x as a NumPy array; x itself where it is one.

    Raises: ArgumentError for what is no array.
    """
    require_array("x", x)
    if isinstance(x, np.ndarray):
        return x
    host: Array = x.get()
    return host
