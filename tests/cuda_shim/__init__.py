"""CUDA kernels on the CPU: compiles an unchanged `.cu` with g++ and shim.h, and calls it with NumPy arrays.

with cuda_shim.running():
    relu_gradient(dy, y)  # the CUDA kernel
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import minidl
from minidl.kernels import cuda

HERE = Path(__file__).parent
BUILD = HERE / "build"
FLAVOURS = {
    "plain": ("-O1",),
    "asan": ("-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"),
    "tsan": ("-O1", "-g1", "-fsanitize=thread", "-DSHIM_THREADS"),
}
WARNINGS = (
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unknown-pragmas",
    "-Wno-unused-function",
    "-Wno-unused-variable",
    "-Wno-clobbered",
)


class ShimError(AssertionError):
    """A kernel did what it must not."""


@cache
def cuda_headers() -> Path | None:
    """Where cuda_fp16.h lies: in a toolkit, or in NVIDIA's wheel."""
    site = Path(sysconfig.get_paths()["purelib"])
    places = [
        Path("/usr/local/cuda/include"),
        *Path("/usr/local").glob("cuda-*/include"),
        *site.glob("nvidia/*/include"),
    ]
    return next((place for place in places if (place / "cuda_fp16.h").exists()), None)


def missing() -> str | None:
    """Why kernels cannot be run on this machine's CPU, or None."""
    if shutil.which("g++") is None:
        return "g++ is not installed"
    return None if cuda_headers() else "NVIDIA's headers are not installed: pip install nvidia-cuda-runtime"


def flavour() -> str:
    """MINIDL_SHIM, or "plain"."""
    return os.environ.get("MINIDL_SHIM", "plain")


class Shim:
    """A backend of kernels: see `minidl.kernels.cuda.Backend`."""

    def holds(self, x: object) -> bool:
        return isinstance(x, np.ndarray)

    def empty(self, shape: tuple[int, ...], dtype: Any, like: np.ndarray) -> np.ndarray:
        array = np.empty(shape, dtype)
        array.view(np.uint8)[...] = 0xFF  # NaN: what a kernel forgets to fill shows
        return array

    def matmul(self, a: np.ndarray, b: np.ndarray, out: np.ndarray, tf32: bool) -> None:
        wide = np.promote_types(out.dtype, np.float32)
        rounded = in_tf32 if tf32 and out.dtype == np.float32 else np.asarray
        out[...] = np.matmul(*(rounded(factor.astype(wide, copy=False)) for factor in (a, b)))

    def launch(self, instance: cuda.Instance, grid: cuda.Grid, block: cuda.Grid, args: list[Any], shared: int) -> None:
        kernel = instance.kernel
        numbers = [np.array(arg) for arg in args]  # kept until the call is over
        arguments = (Argument * len(args))(
            *(
                Argument(arg.ctypes.data, arg.nbytes)
                if parameter.pointer and isinstance(arg, np.ndarray)
                else Argument(number.ctypes.data, 0)
                for parameter, arg, number in zip(kernel.parameters, args, numbers, strict=True)
            )
        )
        sizes = [(ctypes.c_uint * 3)(*size, *(1,) * (3 - len(size))) for size in (grid, block)]
        run = compiled(kernel.stem, kernel.real(instance.arguments))[instance.name]
        error = run(arguments, *sizes, ctypes.c_size_t(shared))
        if error:
            raise ShimError(f"{kernel.stem}.cu: {instance.name}: {error.decode()}")


def in_tf32(x: np.ndarray) -> np.ndarray:
    """Numbers rounded to 11 bits."""
    return ((np.ascontiguousarray(x).view(np.uint32) + 0x1000) & 0xFFFFE000).view(np.float32)


class Argument(ctypes.Structure):
    """See shim.h."""

    _fields_ = (("at", ctypes.c_void_p), ("bytes", ctypes.c_size_t))


@cache
def compiled(stem: str, real: str) -> dict[str, Any]:
    """All instances of a file's kernels for a dtype, by their C++ names."""
    names = instances(stem, real)
    path = build(stem, real, flavour())
    library = ctypes.CDLL(str(path))
    functions = {}
    for number, name in enumerate(names):
        functions[name] = library[f"shim_{number}"]
        functions[name].restype = ctypes.c_char_p
    return functions


def instances(stem: str, real: str) -> list[str]:
    kernels = cuda.Source(stem).kernels.values()
    return [kernel.spelled(i) for kernel in kernels for i in kernel.instances() if real in i or not kernel.template]


def build(stem: str, real: str, flavour: str, *options: str) -> Path:
    """The library of a file's kernels for a dtype, compiled where that has not happened yet."""
    text = "\n".join(
        [
            '#include "shim.h"',
            cuda.source(stem),
            *(
                f'extern "C" const char* shim_{number}(shim::Argument* arguments, const unsigned* grid, '
                "const unsigned* block, size_t shared) "
                f"{{ return shim::Launcher<{name}>::launch(arguments, grid, block, shared); }}"
                for number, name in enumerate(instances(stem, real))
            ),
        ]
    )
    return library(f"{stem}-{real.strip('_')}", text, flavour, *options, str(runtime(flavour)))


@cache
def runtime(flavour: str) -> Path:
    """shim.cpp as a library."""
    return library("shim", (HERE / "shim.cpp").read_text(), flavour)


def library(name: str, text: str, flavour: str, *options: str) -> Path:
    """A C++ program as a shared library in the build folder, compiled where that has not happened yet."""
    command = ["g++", "-std=c++20", "-shared", "-fPIC", *WARNINGS, *FLAVOURS[flavour], f"-I{HERE}"]
    command += ["-isystem", str(cuda_headers())]
    key = hashlib.blake2b(
        "\0".join([*command, *options, text, (HERE / "shim.h").read_text()]).encode(), digest_size=8
    ).hexdigest()
    made = BUILD / f"{name}-{flavour}-{key}.so"
    if not made.exists():
        BUILD.mkdir(exist_ok=True)
        (BUILD / ".gitignore").write_text("*\n")
        for old in BUILD.glob(f"{name}-{flavour}-*"):
            old.unlink()
        program = made.with_suffix(".cpp")
        program.write_text(text)
        partial = made.with_suffix(f".{os.getpid()}")
        environment = {
            name: value for name, value in os.environ.items() if name != "LD_PRELOAD"
        }  # no sanitizer for g++
        subprocess.run([*command, str(program), *options, "-o", str(partial)], check=True, env=environment)
        partial.rename(made)
    return made


def by_hand(header: str, kernel: str, threads: int, *arrays: np.ndarray, flavour: str = "plain") -> str | None:
    """Run `__global__ void f(…) { … }`, behind one of our headers, for one block; what the shim says."""
    text = f"""#include "shim.h"
{cuda._inlined(header)}
{kernel}
extern "C" const char* run(shim::Argument* arguments, const unsigned* grid, const unsigned* block, size_t shared) {{
    return shim::Launcher<f>::launch(arguments, grid, block, shared);
}}
"""
    run = ctypes.CDLL(str(library("by_hand", text, flavour, str(runtime(flavour))))).run
    run.restype = ctypes.c_char_p
    arguments = (Argument * len(arrays))(*(Argument(array.ctypes.data, array.nbytes) for array in arrays))
    said = run(arguments, (ctypes.c_uint * 3)(1, 1, 1), (ctypes.c_uint * 3)(threads, 1, 1), ctypes.c_size_t(0))
    return said and said.decode()


@contextmanager
def running() -> Iterator[None]:
    """Let CUDA kernels compute on NumPy arrays inside a `with` block."""
    with cuda.computed_by(Shim()), minidl.settings(kernels="cuda"):
        yield
