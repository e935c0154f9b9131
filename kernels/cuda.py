"""CUDA kernels: from a `.cu` file to a launch.

A kernel is a template, `template <typename real, int V> __global__ void relu_gradient(const real* dy, …)`, and is
compiled for the types of a call when they first occur. What it takes is read from its declaration: a pointer takes a
contiguous array of that dtype, None or a number is converted to the type that stands there. A launch that would pass
four bytes where the kernel expects eight is so refused with an error, and not found in wrong results.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from minidl.arrays import Array, DTypeLike, array_module, dtype_name, is_array, is_half
from minidl.errors import ArgumentError, DTypeError, KernelError, MinidlError, told
from minidl.window import Window

FOLDER = Path(__file__).parent
OPTIONS = ("--std=c++17",)
REALS = {"float32": "float", "float64": "double", "float16": "__half", "bfloat16": "__nv_bfloat16"}
INDICES = {"uint8": "uint8_t", "uint16": "uint16_t", "uint32": "uint32_t"}
NUMBERS: dict[str, type] = {
    "bool": np.bool_,
    "int": np.int32,
    "unsigned": np.uint32,
    "long long": np.int64,
    "float": np.float32,
    "double": np.float64,
}
WINDOW = "H", "W", "OH", "OW", "KH", "KW", "SH", "SW", "DH", "DW", "top", "left"  # as in kernels/minidl.cuh
GEOMETRY = np.dtype([(name, np.int32) for name in WINDOW])
THREADS = 256  # of a block, where nothing speaks for another number; as in kernels/minidl.cuh
TURNS = 8  # of a thread along a row of pixels at most; as in kernels/minidl.cuh
VECTOR = 16  # bytes that one instruction moves at most
STATIC_SHARED = 48 << 10  # bytes of shared memory that a block may have without being asked whether it means it

NULL = np.uint64(0)  # the pointer of an absent or empty array
_tf32: ContextVar[bool] = ContextVar("minidl.tf32", default=False)
INTEGERS = {number for number in NUMBERS.values() if issubclass(number, np.integer)}

Grid: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Parameter:
    """A parameter of a kernel: `const real* x` is the pointer x to real."""

    type: str
    name: str
    pointer: bool


@dataclass(frozen=True)
class Kernel:
    """What a file declares.

    template: the names of its parameters, in order, each with the values that it may take.
    """

    stem: str
    name: str
    template: tuple[tuple[str, tuple[str, ...]], ...]
    parameters: tuple[Parameter, ...]

    def instances(self) -> Iterator[tuple[str, ...]]:
        """Every combination of template arguments: V is 1, or as many numbers as make 16 bytes."""
        names = [name for name, _ in self.template]
        for values in product(*(values for _, values in self.template)):
            chosen = dict(zip(names, values, strict=True))
            if "V" not in chosen:
                yield values
            else:
                size = np.dtype(_real_dtype(self.real(values))).itemsize
                for V in (1, VECTOR // size):
                    yield tuple(str(V) if name == "V" else value for name, value in chosen.items())

    @staticmethod
    def real(arguments: Sequence[str]) -> str:
        """The dtype among an instance's arguments, or an empty string."""
        return next((argument for argument in arguments if argument in REALS.values()), "")

    def spelled(self, arguments: Sequence[str]) -> str:
        """An instance as C++ names it: `relu_gradient<float, 4>`."""
        return f"{self.name}<{', '.join(arguments)}>" if arguments else self.name


@dataclass(frozen=True)
class Instance:
    """A kernel for certain template arguments.

    name: as C++ spells it.
    expected: what each parameter takes: the dtype of a pointer's array, or the type of a number.
    """

    kernel: Kernel
    arguments: tuple[str, ...]
    name: str
    expected: tuple[Any, ...]

    @classmethod
    def of(cls, kernel: Kernel, arguments: tuple[str, ...]) -> Instance:
        """The kernel for these arguments."""
        types = dict(zip((name for name, _ in kernel.template), arguments, strict=True))
        expected = tuple(_expected(parameter, types) for parameter in kernel.parameters)
        return cls(kernel, arguments, kernel.spelled(arguments), expected)

    def pack(self, args: Sequence[Any]) -> list[Any]:
        """The arguments as the declaration wants them: arrays as they are, numbers converted to its types.

        Raises: ArgumentError, DTypeError naming the parameter.
        """
        parameters = self.kernel.parameters
        if len(args) != len(parameters):
            raise self._error(f"expected {len(parameters)} arguments, got {len(args)}")
        checks = zip(parameters, self.expected, args, strict=True)
        return [
            self._pointer(p, expected, value) if p.pointer else self._number(p, expected, value)
            for p, expected, value in checks
        ]

    def _pointer(self, parameter: Parameter, dtype: Any, value: Any) -> Any:
        if value is None:
            return NULL
        if not is_array(value) or not _backend.holds(value):
            raise self._error(
                f"{parameter.name}: expected an array where the kernel computes, got {told(value)}; "
                "move it with to_device"
            )
        if dtype_name(value.dtype) != dtype:
            raise self._error(f"{parameter.name}: expected {dtype}, got {value.dtype.name}", DTypeError)
        if not value.flags.c_contiguous:
            raise self._error(f"{parameter.name}: expected a contiguous array, got strides {value.strides}")
        return value if value.size else NULL

    def _number(self, parameter: Parameter, number: Any, value: Any) -> Any:
        if number is GEOMETRY:
            if getattr(value, "dtype", None) != GEOMETRY:
                raise self._error(f"{parameter.name}: expected a geometry, got {told(value)}")
            return value
        if isinstance(value, bool) != (number is np.bool_) or not isinstance(value, bool | int | float | np.number):
            raise self._error(f"{parameter.name}: expected {number.__name__}, got {told(value)}")
        try:
            converted = number(value)
        except OverflowError:
            converted = None
        if converted is None or (number in INTEGERS and converted != value):
            raise self._error(f"{parameter.name}: expected {number.__name__}, got {value}")
        return converted

    def _error(self, message: str, kind: type[MinidlError] = ArgumentError) -> MinidlError:
        return kind(f"{self.kernel.stem}.cu: {self.name}: {message}")


class Backend(Protocol):
    """What compiles and runs kernels: CuPy, or in tests, a compiler for the CPU."""

    def holds(self, x: object) -> bool:
        """Whether its kernels can compute on the array."""

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike, like: Array) -> Array:
        """An array for a kernel to fill."""

    def matmul(self, a: Array, b: Array, out: Array, tf32: bool) -> None:
        """out = a · b: see `matmul`. With tf32, factors of float32 may be rounded to 11 bits."""

    def launch(self, instance: Instance, grid: Grid, block: Grid, args: list[Any], shared: int) -> None:
        """Run it for a grid of blocks of threads. The arguments are arrays, and numbers of the types declared."""


class Source:
    """A `.cu` file and its kernels.

    >>> Source("relu").kernels["relu_gradient"].parameters[0]
    Parameter(type='real', name='dy', pointer=True)
    """

    def __init__(self, stem: str) -> None:
        self.stem = stem
        self._instances: dict[tuple[Any, ...], Instance] = {}

    @property
    def kernels(self) -> dict[str, Kernel]:
        """All that the file declares, by name."""
        return _declared(self.stem)

    def launch(
        self, name: str, template: Sequence[Any], grid: int | Grid, block: int | Grid, *args: Any, shared: int = 0
    ) -> None:
        """Run a kernel.

        template: dtypes and integers, in the order of the template's parameters.
        args: arrays, None for an absent one, numbers, in the order of the kernel's parameters.
        shared: bytes of dynamic shared memory.
        Raises: ArgumentError, DTypeError for arguments that the declaration does not fit; KernelError where it does
            not compile.
        """
        instance = self._instances.get((name, *template))
        if instance is None:
            kernel = self.kernels[name]
            instance = Instance.of(kernel, tuple(_template_argument(value) for value in template))
            self._instances[name, *template] = instance
        grid = (grid,) if isinstance(grid, int) else grid
        block = (block,) if isinstance(block, int) else block
        _check_grid(instance.kernel, grid, block)
        packed = instance.pack(args)
        if 0 not in grid:
            _backend.launch(instance, grid, block, packed, shared)


def empty(shape: tuple[int, ...], dtype: DTypeLike, like: Array) -> Array:
    """An array for a kernel to fill, where another lives."""
    return _backend.empty(shape, dtype, like)


def empty_like(x: Array) -> Array:
    """An array of the same shape and dtype for a kernel to fill."""
    return empty(x.shape, x.dtype, x)


def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """out = a · b for matrices of one dtype, summed in at least float32: a product of cuBLAS, as CuPy calls it.

    Raises: ArgumentError for arrays that live elsewhere, and for what CuPy would have to copy or compute in a slower
        way: an operand contiguous neither as it is nor transposed, an out not contiguous, two dtypes, more dimensions.
    """
    if out is None:
        out = empty((a.shape[0], b.shape[1]), a.dtype, a)
    contiguous = out.flags.c_contiguous and all(x.flags.c_contiguous or x.flags.f_contiguous for x in (a, b))
    if not contiguous or not all(_backend.holds(x) and x.ndim == 2 and x.dtype == out.dtype for x in (a, b, out)):
        got = ", ".join(f"{told(x)} with strides {x.strides}" for x in (a, b, out))
        raise ArgumentError(f"matmul: expected contiguous matrices of one dtype where kernels compute, got {got}")
    _backend.matmul(a, b, out, _tf32.get())
    return out


@contextmanager
def products_in(tf32: bool) -> Iterator[None]:
    """Inside, `matmul` may round factors of float32 to 11 bits, or may not."""
    token = _tf32.set(tf32)
    try:
        yield
    finally:
        _tf32.reset(token)


def vector(numbers: int, *arrays: Array) -> int:
    """V: how many neighbouring numbers a thread moves at once. Rows of so many must consist of such groups, and each
    array begin at a multiple of 16 bytes.

    >>> vector(96, np.empty(96, np.float32)) in (1, 4), vector(97, np.empty(97, np.float32))
    (True, 1)
    """
    V = VECTOR // arrays[0].itemsize
    return V if numbers % V == 0 and all(address(a) % VECTOR == 0 for a in arrays) else 1


def address(x: Array) -> int:
    """Where in memory the array begins."""
    return int(x.ctypes.data if isinstance(x, np.ndarray) else x.data.ptr)


def blocks(n: int, threads: int = THREADS) -> int:
    """How many blocks of threads `EACH` may use for n numbers: enough to fill any GPU, and no more.

    >>> blocks(1000), blocks(10**9)
    (4, 8192)
    """
    return min(-(-n // threads), 8192)


def across(C: int, V: int) -> tuple[int, tuple[int, int]]:
    """For rows of C channels: how many blocks stand side by side along a row, and a block's threads (along the row,
    rows). A thread takes V channels.

    >>> across(96, V=4), across(4096, V=4)
    ((1, (24, 10)), (4, (256, 1)))
    """
    wide = -(-(C // V) // THREADS)
    threads = -(-(C // V) // wide)
    return wide, (threads, THREADS // threads)


def rows(shape: tuple[int, ...], V: int) -> tuple[Grid, Grid]:
    """Grid and block for `each_pixel` of kernels/minidl.cuh over (N, H, W, C): rows of pixels × parts of C × parts of
    a row. A thread takes V channels of at most TURNS pixels.

    >>> rows((128, 27, 27, 96), V=4), rows((128, 224, 224, 64), V=4)
    (((3456, 1, 1), (24, 9)), ((28672, 1, 2), (16, 16)))
    """
    N, H, W, C = shape
    wide, (threads, pixels) = across(C, V)
    turns = -(-W // pixels)
    return (N * H, wide, -(-turns // TURNS)), (threads, -(-W // turns))


def tiles(shape: tuple[int, ...], V: int) -> tuple[Grid, Grid]:
    """Grid and block for `gather` of kernels/gather.cuh, where a thread takes V channels of 2×2 pixels.

    >>> tiles((128, 27, 27, 96), V=4) == rows((128, 14, 14, 96), V=4)
    True
    """
    N, H, W, C = shape
    return rows((N, -(-H // 2), -(-W // 2), C), V)


def shares(rows: int, C: int, V: int) -> tuple[Grid, Grid]:
    """Grid and block for `each_row` of kernels/channels.cuh: shares of the rows × parts of a row. How many shares there
    are depends on the shape alone, and with it the order in which they are added up.

    >>> shares(128 * 27 * 27, 96, V=4), shares(128, 4096, V=4)
    (((1024, 1), (24, 10)), ((16, 4), (256, 1)))
    """
    wide, (threads, block_rows) = across(C, V)
    return (min(1024, -(-rows // (8 * block_rows))), wide), (threads, min(block_rows, max(rows, 1)))


def over_channels(C: int, shares: int) -> tuple[Grid, Grid]:
    """Grid and block for `add_shares` of kernels/channels.cuh."""
    return (-(-C // 8),), (8, min(THREADS // 8, max(shares, 1)))


def rows_of(C: int, N: int, V: int) -> tuple[Grid, Grid]:
    """Grid and block for N rows of C numbers as kernels/row.cuh takes them: four rows a block where a warp is enough
    for one, else a block a row, with about four groups of V numbers for each thread.

    >>> rows_of(10, 128, V=1), rows_of(1000, 128, V=4)
    (((32,), (32, 4)), ((128,), (64, 1)))
    """
    threads = min(512, max(1, -(-C // (4 * V * 32))) * 32)
    together = 4 if threads == 32 else 1
    return (-(-N // together),), (threads, together)


@cache
def geometry(window: Window, H: int, W: int) -> Any:
    """A window over images of H×W pixels as the struct Geometry."""
    (top, _), (left, _) = window.padding
    numbers = (H, W, *window.output_size(H, W), *window.kernel, *window.stride, *window.dilation, top, left)
    return np.array(numbers, GEOMETRY)


def _expected(parameter: Parameter, types: dict[str, str]) -> Any:
    if parameter.type == "Geometry":
        return GEOMETRY
    name = _dtype(parameter.type, types)
    return name if parameter.pointer else np.dtype(name).type


def _dtype(spelling: str, types: dict[str, str]) -> str:
    """The NumPy name of a C++ type in an instance."""
    if wide := re.fullmatch(r"wide<(\w+)>", spelling):
        return "float64" if types[wide[1]] == "double" else "float32"
    spelling = types.get(spelling, spelling)
    names = {cpp: name for name, cpp in (REALS | INDICES).items()}
    return names.get(spelling) or np.dtype(NUMBERS[spelling]).name


def _real_dtype(spelling: str) -> str:
    name = next(name for name, cpp in REALS.items() if cpp == spelling)
    return "float16" if name == "bfloat16" else name  # of the same size


def _template_argument(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else (REALS | INDICES)[np.dtype(value).name]


def _check_grid(kernel: Kernel, grid: Grid, block: Grid) -> None:
    if len(grid) > 3 or min(grid) < 0 or grid[0] >= 1 << 31 or max(grid[1:], default=0) > 65535:
        raise ArgumentError(f"{kernel.stem}.cu: {kernel.name}: no GPU has a grid of {grid} blocks")
    if len(block) > 3 or min(block) < 1 or math.prod(block) > 1024:
        raise ArgumentError(f"{kernel.stem}.cu: {kernel.name}: no GPU has blocks of {block} threads")


def source(stem: str) -> str:
    """The text of `stem.cu` with our own headers written out, which name their lines to the compiler."""
    return _inlined(f"{stem}.cu")


def _inlined(name: str) -> str:
    lines = [f'#line 1 "{name}"']
    for number, line in enumerate((FOLDER / name).read_text(encoding="utf-8").splitlines(), 1):
        header = re.fullmatch(r'#include "(.+)"', line)
        lines += [_inlined(header[1]), f'#line {number + 1} "{name}"'] if header else [line.replace("#pragma once", "")]
    return "\n".join(lines)


DECLARATION = re.compile(
    r"(?:template\s*<(?P<template>[^>]*)>\s*)?__global__\s+(?:__launch_bounds__\([^)]*\)\s+)?"
    r"void\s+(?P<name>\w+)\s*\((?P<parameters>[^)]*)\)"
)


@cache
def _declared(stem: str) -> dict[str, Kernel]:
    text = re.sub(r"//.*", "", (FOLDER / f"{stem}.cu").read_text(encoding="utf-8"))
    return {
        found["name"]: Kernel(
            stem,
            found["name"],
            tuple(_template_parameter(p) for p in (found["template"] or "").split(",") if p),
            tuple(_parameter(p) for p in found["parameters"].split(",")),
        )
        for found in DECLARATION.finditer(text)
    }


def _template_parameter(text: str) -> tuple[str, tuple[str, ...]]:
    kind, name = text.split()
    if kind == "bool":
        return name, ("false", "true")
    reals = tuple(REALS.values())
    tensor = tuple(real for real in reals if real != "double")  # what tensor cores multiply
    return name, {"real": reals, "tensor": tensor, "index": tuple(INDICES.values()), "V": ("V",)}[name]


def _parameter(text: str) -> Parameter:
    words = text.replace("*", " * ").replace("__restrict__", "").replace("const ", "").split()
    return Parameter(" ".join(word for word in words[:-1] if word != "*"), words[-1], "*" in words)


class CuPy:
    """Kernels on the GPU, through CuPy, which keeps what it compiled in its own folder on disk."""

    def holds(self, x: object) -> bool:
        """See `Backend.holds`."""
        return is_array(x) and not isinstance(x, np.ndarray)

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike, like: Array) -> Array:
        """See `Backend.empty`."""
        array: Array = array_module(like).empty(shape, dtype)
        return array

    def matmul(self, a: Array, b: Array, out: Array, tf32: bool) -> None:
        """See `Backend.matmul`."""
        from cupy._core import _routines_linalg as linalg

        if out.size == 1 and is_half(out):  # a single number is no product of cuBLAS: CuPy would round each term
            out[...] = array_module(out).matmul(a.astype(np.float32), b.astype(np.float32))
            return
        before = linalg.get_compute_type(out.dtype)
        if tf32 and out.dtype == np.float32:
            linalg.set_compute_type(out.dtype, linalg.COMPUTE_TYPE_TF32)
        try:
            array_module(out).matmul(a, b, out=out)
        finally:
            linalg.set_compute_type(out.dtype, before)

    def launch(self, instance: Instance, grid: Grid, block: Grid, args: list[Any], shared: int) -> None:
        """See `Backend.launch`."""
        import cupy

        kernel = _loaded(instance.kernel.stem, instance.name, shared, cupy.cuda.runtime.getDevice())
        kernel(grid, block, tuple(args), shared_mem=shared)


@cache
def _loaded(stem: str, instance: str, shared: int, device: int) -> Any:
    """The kernel for the current device, ready for so many bytes of dynamic shared memory."""
    import cupy

    module = cupy.RawModule(code=source(stem), options=OPTIONS, name_expressions=[instance])
    try:
        kernel = module.get_function(instance)
    except cupy.cuda.compiler.CompileException as error:
        raise KernelError(explained(stem, instance, str(error))) from error
    if shared > STATIC_SHARED:
        kernel.max_dynamic_shared_size_bytes = shared
    return kernel


def explained(stem: str, instance: str, log: str) -> str:
    """The compiler's log, with the line that it complains of first."""
    at = re.search(r"([\w.]+\.cuh?)\((\d+)\): error", log)
    quoted = ""
    if at and (FOLDER / at[1]).exists():
        line = (FOLDER / at[1]).read_text(encoding="utf-8").splitlines()[int(at[2]) - 1]
        quoted = f"\n{at[1]}:{at[2]}: {line.strip()}"
    return f"{stem}.cu: {instance} does not compile{quoted}\n{log.strip()}"


_backend: Backend = CuPy()


@contextmanager
def computed_by(backend: Backend) -> Iterator[None]:
    """Let another backend run the kernels inside a `with` block: how tests do without a GPU."""
    global _backend
    before, _backend = _backend, backend
    try:
        yield
    finally:
        _backend = before
