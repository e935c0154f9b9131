"""The one place where a kernel is chosen for an op.

An op in `minidl/ops/` is plain array code, and the specification. A kernel of the same name in `minidl.kernels` does
the same faster. `@accelerated` stands between: it calls the kernel where there is one for the arrays at hand, and
the op's own body everywhere else. The body stays callable as `op.reference`.
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from functools import cache, update_wrapper
from importlib.util import find_spec
from typing import Any, Generic, ParamSpec, TypeVar, cast

import numpy as np

from minidl.arrays import array_module, device_of, is_array, is_half
from minidl.errors import ArgumentError, DeviceError, UnknownNameError

CHOICES = {
    "kernels": ("auto", "reference", "numba", "cuda"),
    "conv2d": ("auto", "im2col", "winograd", "implicit"),
}


@dataclass(frozen=True)
class Settings:
    """How things are computed, never what.

    kernels: "auto" takes Numba for NumPy arrays where it is installed, and CUDA for CuPy arrays; "numba" and "cuda"
        insist; "reference" always runs the plain bodies.
    conv2d: the algorithm of convolution's kernels. "auto" takes what is fastest for the shapes at hand; "im2col",
        "winograd" (see docs/winograd.md; on the CPU, where it fits: a square kernel of at most 5 strides, dilation 1)
        and "implicit" (on a GPU's tensor cores, in half precision or with tf32) insist.

    tf32: let matrix products of float32 on a GPU round their factors to 11 bits, for its tensor cores.

    Raises: UnknownNameError, ArgumentError for another value.
    """

    kernels: str = "auto"
    conv2d: str = "auto"
    tf32: bool = False

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise UnknownNameError(f"setting for {name}", getattr(self, name), choices)
        if not isinstance(self.tf32, bool):
            raise ArgumentError(f"setting for tf32: expected True or False, got {self.tf32!r}")


_DEFAULT = Settings()
_current: ContextVar[Settings] = ContextVar("minidl.settings", default=_DEFAULT)


@contextmanager
def settings(**changes: Any) -> Iterator[Settings]:
    """Compute differently inside a `with` block.

    >>> with settings(kernels="reference") as chosen:
    ...     print(chosen.kernels)
    reference

    Raises: UnknownNameError for an unknown setting or value.
    """
    known = [setting.name for setting in fields(Settings)]
    for name in changes:
        if name not in known:
            raise UnknownNameError("setting", name, known)
    token = _current.set(replace(_current.get(), **changes))
    try:
        yield _current.get()
    finally:
        _current.reset(token)


def set_num_threads(n: int) -> None:
    """Let kernels use so many threads from now on, in this process; it goes before MINIDL_NUM_THREADS.

    Raises: ArgumentError where n is not a positive integer.
    """
    from minidl.kernels.threads import set_num_threads as choose

    choose(n)


def num_threads() -> int:
    """How many threads a kernel may use: see `set_num_threads`; else MINIDL_NUM_THREADS, or the processors at hand.

    Raises: ArgumentError where MINIDL_NUM_THREADS is not a positive integer.
    """
    from minidl.kernels.threads import num_threads as count

    return count()


def compile_convolutions() -> None:
    """Compile Winograd's convolution for every size of tile that it may choose; nothing where there is no Numba."""
    if not _numba_problem():
        importlib.import_module("minidl.kernels.winograd").compile_all()


P = ParamSpec("P")
R = TypeVar("R")


class accelerated(Generic[P, R]):  # noqa: N801, as it reads as a decorator
    """Let a kernel of the same module and function name stand in for an op's body.

    A kernel gets its arrays C-contiguous, so that it is compiled for one layout only.
    """

    def __init__(self, body: Callable[P, R]) -> None:
        update_wrapper(self, body)
        self.reference = body
        self.stem = body.__module__.rpartition(".")[2]
        self.name = body.__name__
        self.rounds = True  # its results to half precision, where that is what it was given

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the kernel where there is one for these arrays, else the body."""
        given = (*args, *kwargs.values())
        kernel = _kernel_for(self.stem, self.name, given)
        if not _on_gpu(kernel) and any(map(is_half, given)):
            return cast(R, self._in_float32(args, kwargs))
        if kernel is None:
            return self.reference(*args, **kwargs)
        options = {name: _contiguous(value) for name, value in kwargs.items()}
        for option in _settings_of(kernel):
            options[option] = getattr(_current.get(), self.stem if option == "algorithm" else option)
        result: R = kernel(*map(_contiguous, args), **options)
        return result

    def _in_float32(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What an op does in half precision where no kernel knows it: float32 within, rounded at the end."""
        half = next(value for value in (*args, *kwargs.values()) if is_half(value)).dtype
        wide = [_widened(value) for value in args]
        result = self(*wide, **{name: _widened(value) for name, value in kwargs.items()})
        if result is None:  # it has written into its arguments
            for value, changed in zip(args, wide, strict=True):
                if is_half(value):
                    value[...] = changed.astype(value.dtype)
        if not self.rounds:
            return result
        return tuple(_rounded(y, half) for y in result) if isinstance(result, tuple) else _rounded(result, half)


def _widened(value: Any) -> Any:
    return value.astype("float32") if is_half(value) else value


def _rounded(result: Any, dtype: Any) -> Any:
    return result.astype(dtype) if is_array(result) and result.dtype.name == "float32" else result


def _on_gpu(kernel: Callable[..., Any] | None) -> bool:
    return kernel is not None and kernel.__module__.endswith("_cuda")


def _contiguous(value: Any) -> Any:
    if not is_array(value) or (value.flags.c_contiguous and type(value) is not np.memmap):
        return value
    return array_module(value).asarray(value, order="C")


def _kernel_for(stem: str, name: str, args: tuple[Any, ...]) -> Callable[..., Any] | None:
    arrays = [a for a in args if is_array(a)]
    devices = list(dict.fromkeys(map(device_of, arrays)))
    if len(devices) > 1:
        places = ", ".join(f"{a.shape} on {device_of(a)}" for a in arrays)
        raise DeviceError(f"{name}: expected arrays on one device, got {places}; move them with to_device or net.to")
    kernels = _current.get().kernels
    if kernels == "reference":
        return None
    on_gpu = bool(devices) and devices != ["cpu"]
    if on_gpu and kernels == "numba":
        raise ArgumentError(
            f"{name}: kernels='numba' computes on the cpu, got arrays on {devices[0]}; use kernels='auto' or 'cuda'"
        )
    if on_gpu or kernels == "cuda":
        return _cuda_kernel(stem, name)
    return _numba_kernel(stem, name, kernels == "numba")


@cache
def _settings_of(kernel: Callable[..., Any]) -> tuple[str, ...]:
    """The settings that a kernel asks for: as "algorithm" that which is named like its file, as "tf32" that."""
    return tuple(name for name in inspect.signature(kernel).parameters if name in ("algorithm", "tf32"))


@cache
def _numba_kernel(stem: str, name: str, required: bool) -> Callable[..., Any] | None:
    problem = _numba_problem()
    if problem and required:
        raise ArgumentError(f"kernels='numba': {problem}; use kernels='auto' or 'reference'")
    if problem:
        return None
    if find_spec(f"minidl.kernels.{stem}") is None:
        return None
    importlib.import_module("minidl.kernels.memory").keep_memory()
    kernel: Callable[..., Any] | None = getattr(importlib.import_module(f"minidl.kernels.{stem}"), name, None)
    return kernel


@cache
def _cuda_kernel(stem: str, name: str) -> Callable[..., Any] | None:
    if find_spec(f"minidl.kernels.{stem}_cuda") is None:
        return None
    return getattr(importlib.import_module(f"minidl.kernels.{stem}_cuda"), name, None)


@cache
def _numba_problem() -> str | None:
    """Why Numba cannot be used, which is also told once as a warning; or None."""
    try:
        import numba  # noqa: F401
    except Exception as error:  # an ImportError where NumPy is too new for it, say
        problem = f"Numba cannot be imported ({error})"
        warnings.warn(f"{problem}: the slow reference bodies run instead; pip install numba", stacklevel=2)
        return problem
    return None
