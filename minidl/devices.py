"""Devices by name, which of them can be used, and what stands in a GPU's way.

CuPy computes on one GPU at a time, the current one: `using("cuda:1")` makes another current inside a `with` block.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distributions
from typing import Any

from minidl.errors import ArgumentError, DeviceError, DeviceMemoryError, told

OLDEST_CUDA = 12  # of which there is a CuPy to install
OR_CPU = "or use device 'cpu'"


def cupy_module() -> Any:
    """CuPy.

    Raises: ImportError, or whatever else importing it comes to where it is broken.
    """
    import cupy

    return cupy


def parse_device(device: str) -> str:
    """Normalise a device name to `"cpu"` or `"cuda:N"`, after checking that it can be used.

    >>> parse_device("cpu")
    'cpu'

    Raises: ArgumentError for a malformed name; DeviceError, with the reason, where no such GPU is usable.
    """
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", device) if isinstance(device, str) else None
    if match is None:
        raise ArgumentError(f"device: expected 'cpu', 'cuda' or 'cuda:N', got {told(device)}")
    if device == "cpu":
        return device
    index = int(match[1] or 0)
    if problem := gpu_problem():
        raise DeviceError(f"device {device!r}: {problem}, {OR_CPU}")
    count = int(cupy_module().cuda.runtime.getDeviceCount())
    if index >= count:
        last = f"from cuda:0 to cuda:{count - 1}" if count > 1 else "named cuda:0"
        raise DeviceError(f"device {device!r}: this machine has {count} usable GPU{'s' * (count > 1)}, {last}")
    return f"cuda:{index}"


@contextmanager
def using(device: str) -> Iterator[None]:
    """Compute on a device inside a `with` block.

    Raises: as `parse_device`; DeviceMemoryError where the GPU's memory is too small for what is done inside.
    """
    device = parse_device(device)
    if device == "cpu":
        yield
        return
    cupy = cupy_module()
    gpu = cupy.cuda.Device(int(device.removeprefix("cuda:")))
    with gpu:
        try:
            yield
        except cupy.cuda.memory.OutOfMemoryError as error:
            asked, held = (int(n.replace(",", "")) for n in re.findall(r"([\d,]+) bytes", str(error))[:2])
            free, total = gpu.mem_info
            raise DeviceMemoryError(device, asked, held, free, total) from error


def device_name(device: str) -> str:
    """What a device is, with the versions of what computes there.

    >>> device_name("cpu")
    'the processor'

    Raises: as `parse_device`: ArgumentError, DeviceError.
    """
    device = parse_device(device)
    if device == "cpu":
        return "the processor"
    cupy = cupy_module()
    name = cupy.cuda.runtime.getDeviceProperties(int(device.removeprefix("cuda:")))["name"].decode()
    return f"{name} by CuPy {cupy.__version__} and CUDA {cuda_version(cupy.cuda.runtime.runtimeGetVersion())}"


# --- why no GPU can be used ---------------------------------------------------------------------------------------


def gpu_problem() -> str | None:
    """Why no GPU can be used, and what would help, in one line; None where one can."""
    try:
        cupy = cupy_module()
    except Exception as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == "cupy"
        problem = "is not installed" if absent else f"cannot be imported ({first_line(error)})"
        return f"CuPy {problem}; {_cure(driver_cuda())}"
    if cupy.is_available():
        return None
    driver = driver_cuda()
    built = int(cupy.cuda.runtime.runtimeGetVersion()) // 1000
    found = f"CuPy {cupy.__version__} for CUDA {built} is installed"
    if driver is None:
        return f"{found}, but no NVIDIA driver; install one for CUDA {built} or newer"
    if driver // 1000 < built:
        return f"{found}, but the driver only knows CUDA {cuda_version(driver)}; {_cure(driver)} (or a newer driver)"
    try:
        cupy.cuda.runtime.getDeviceCount()
        reason = "no GPU"
    except Exception as error:
        reason = first_line(error)
    return f"{found}, but finds no usable GPU ({reason}); see what nvidia-smi shows, and CUDA_VISIBLE_DEVICES"


def _cure(driver: int | None) -> str:
    """What to install where CuPy is missing, or is one for another driver."""
    if driver is None:
        return f"install NVIDIA's driver, and {install()} (gpu12 where the driver knows CUDA 12 only)"
    if driver // 1000 < OLDEST_CUDA:
        return f"install a driver for CUDA {OLDEST_CUDA} or newer, then {install(OLDEST_CUDA * 1000)}"
    others = [name for name in cupy_packages() if name != f"cupy-cuda{driver // 1000}x"]
    return f"pip uninstall -y {' '.join(others)} && {install(driver)}" if others else install(driver)


def install(driver: int | None = None) -> str:
    """The command that installs what a driver of this CUDA version needs.

    >>> install(12040)
    "pip install 'minidl[gpu12]'"
    """
    return f"pip install 'minidl[gpu{12 if driver is not None and driver // 1000 == 12 else 13}]'"


def driver_cuda() -> int | None:
    """The newest CUDA version that NVIDIA's driver knows, 1000·major + 10·minor; None where there is no driver."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        version = ctypes.c_int()
        return version.value if driver.cuDriverGetVersion(ctypes.byref(version)) == 0 and version.value else None
    except (OSError, AttributeError):
        return None


def cuda_version(number: int) -> str:
    """A version as CUDA numbers it, for people.

    >>> cuda_version(12040)
    '12.4'
    """
    return f"{number // 1000}.{number % 1000 // 10}"


def cupy_packages() -> list[str]:
    """The installed packages that hold CuPy: there is one for each major version of CUDA, and room for one only."""
    names = (distribution.metadata["Name"] for distribution in distributions())
    return sorted({name for name in names if re.fullmatch(r"cupy(-cuda\w+|-rocm\S+)?", name or "")})


def first_line(error: BaseException) -> str:
    """What an error says, or else its name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
