"""What is installed and usable on this machine, what is not, why, and what to install.

Each question is asked for itself: whatever goes wrong in one, the others are answered.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import minidl
from minidl.accelerate import num_threads
from minidl.arrays import to_device, to_host
from minidl.devices import (
    cuda_version,
    cupy_module,
    cupy_packages,
    driver_cuda,
    first_line,
    gpu_problem,
    install,
    parse_device,
    using,
)
from minidl.errors import DeviceError


@dataclass(frozen=True)
class Finding:
    """The answer to one question, for people and, in `values`, for programs."""

    name: str
    ok: bool
    text: str
    values: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The finding as JSON can hold it."""
        return asdict(self)


@dataclass(frozen=True)
class Report:
    """What was found: about what is installed, and a verdict about each device."""

    installed: tuple[Finding, ...]
    devices: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether the CPU can be used; a GPU is an extra."""
        return all(device.ok for device in self.devices if device.name == "cpu")

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it."""
        parts = {"installed": self.installed, "devices": self.devices}
        return {"ok": self.ok, **{name: [found.to_dict() for found in part] for name, part in parts.items()}}

    def __str__(self) -> str:
        width = max(len(found.name) for found in (*self.installed, *self.devices))
        lines = [
            [f"{' ' if found.ok else '✗'} {found.name:{width}}  {found.text}" for found in part]
            for part in (self.installed, self.devices)
        ]
        return "\n".join([*lines[0], "", *lines[1]])


def examine() -> Report:
    """Look at everything. Takes as long as two kernels take to compile."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a warning tells is told below
        installed = tuple(asked(name, question) for name, question in QUESTIONS.items())
        gpus = asked("cuda", gpu_names)
        devices = [asked("cpu", cpu)]
        devices += [asked(name, partial(gpu, name)) for name in gpus.values.get("names", ())]
        return Report(installed, (*devices,) if len(devices) > 1 else (*devices, gpus))


Answer = tuple[str, dict[str, Any]]


def asked(name: str, question: Callable[[], Answer]) -> Finding:
    """The answer to a question; where asking fails, however it does, that is the answer."""
    try:
        text, values = question()
    except (Exception, SystemExit) as error:
        what = "" if isinstance(error, DeviceError | Missing) else f"{type(error).__name__}: "
        return Finding(name, False, f"{what}{first_line(error)}")
    return Finding(name, True, text, values)


class Missing(Exception):  # noqa: N818, as it is an answer
    """What was asked for is not there; the text says what to do."""


# --- what is installed --------------------------------------------------------------------------------------------


def python() -> Answer:
    """Which Python runs."""
    return f"{platform.python_version()}, {sys.executable}", {"version": platform.python_version()}


def this() -> Answer:
    """Which minidl runs."""
    folder = str(Path(minidl.__file__).parent)
    return f"{minidl.__version__}, {folder}", {"version": minidl.__version__, "folder": folder}


def numpy() -> Answer:
    """NumPy, and the library that does its matrix products."""
    from threadpoolctl import threadpool_info

    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    blas = [f"{pool['internal_api']} {pool['version']} with {pool['num_threads']} threads" for pool in pools]
    return f"{np.__version__}, matrix products by {', '.join(blas) or 'an unknown library'}", {
        "version": np.__version__,
        "blas": blas,
    }


def numba() -> Answer:
    """Numba, which compiles the CPU's kernels."""
    import numba

    return numba.__version__, {"version": numba.__version__}


def threads() -> Answer:
    """How many threads kernels use, and who says so."""
    count = num_threads()
    says = " (MINIDL_NUM_THREADS)" if os.environ.get("MINIDL_NUM_THREADS") else ""
    return f"{count} of {os.cpu_count()} processors{says}", {"threads": count, "processors": os.cpu_count()}


def ml_dtypes() -> Answer:
    """ml_dtypes, which gives NumPy bfloat16."""
    try:
        found = version("ml_dtypes")
    except ImportError as error:
        raise Missing(f"not installed, so there is no bfloat16; {install(driver_cuda())}") from error
    return found, {"version": found}


def driver() -> Answer:
    """NVIDIA's driver, and the newest CUDA that it knows."""
    cuda = driver_cuda()
    if cuda is None:
        raise Missing("none: libcuda is not there, or does not answer")
    about = Path("/proc/driver/nvidia/version")
    found = re.search(r"(?:Module|for \S+)\s+(\d+\.[\d.]+)", about.read_text()) if about.exists() else None
    name = found[1] if found else "of unknown version"
    return f"{name}, for CUDA up to {cuda_version(cuda)}", {"version": name, "cuda": cuda_version(cuda)}


def cupy() -> Answer:
    """CuPy, and the CUDA for which it is built."""
    packages = cupy_packages()
    try:
        module = cupy_module()
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise
        raise Missing(f"not installed; {install(driver_cuda())}") from error
    built = cuda_version(int(module.cuda.runtime.runtimeGetVersion()))
    if len(packages) > 1:
        raise Missing(f"{' and '.join(packages)} are both installed and stand in each other's way; keep one")
    return f"{module.__version__}, for CUDA {built}", {"version": module.__version__, "cuda": built}


def nvrtc() -> Answer:
    """The compiler of GPU kernels."""
    found = ".".join(map(str, cupy_module().cuda.nvrtc.getVersion()))
    return found, {"version": found}


QUESTIONS: dict[str, Callable[[], Answer]] = {
    "Python": python,
    "minidl": this,
    "NumPy": numpy,
    "Numba": numba,
    "threads": threads,
    "ml_dtypes": ml_dtypes,
    "NVIDIA driver": driver,
    "CuPy": cupy,
    "NVRTC": nvrtc,
}


# --- what works ---------------------------------------------------------------------------------------------------


def gpu_names() -> Answer:
    """The GPUs that can be used.

    Raises: Missing, with the reason, where there are none.
    """
    if problem := gpu_problem():
        raise Missing(f"cannot be used: {problem}")
    count = int(cupy_module().cuda.runtime.getDeviceCount())
    return f"{count} GPUs", {"names": [f"cuda:{index}" for index in range(count)]}


def gpu(name: str) -> Answer:
    """What a GPU is, and whether it computes."""
    module, index = cupy_module(), int(name.removeprefix("cuda:"))
    about = module.cuda.runtime.getDeviceProperties(index)
    free, total = module.cuda.Device(index).mem_info
    title = about["name"].decode()
    values = {
        "gpu": title,
        "compute_capability": f"{about['major']}.{about['minor']}",
        "free_bytes": int(free),
        "total_bytes": int(total),
    }
    try:
        seconds = trial(name, "cuda")
    except Exception as error:
        cause = f"{title} is there, but does not compute ({first_line(error)})"
        raise Missing(f"{cause}; {install(driver_cuda())}") from error
    memory = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    text = f"works: {title}, compute capability {values['compute_capability']}, {memory}"
    return f"{text}; a first kernel took {seconds:.1f} s", {**values, "seconds": seconds}


def cpu() -> Answer:
    """Whether the CPU computes, and as fast as it can."""
    try:
        seconds = trial("cpu", "numba")
    except Exception as error:
        seconds = trial("cpu", "reference")
        return f"works, but slowly: {first_line(error)}; pip install --upgrade numba", {"seconds": seconds}
    return f"works; a first kernel took {seconds:.1f} s", {"seconds": seconds}


def trial(device: str, kernels: str) -> float:
    """Compile a kernel, run it, and multiply two matrices; in seconds.

    Raises: what goes wrong, and DeviceError for a wrong result.
    """
    from minidl.ops.relu import relu_gradient

    begin = time.perf_counter()
    numbers = np.arange(64, dtype=np.float32).reshape(8, 8)
    with using(parse_device(device)), minidl.settings(kernels=kernels):
        x = to_device(numbers, device)
        cut, product = to_host(relu_gradient(x, x - 8)), to_host(x @ x)
    if not (cut == numbers * (numbers > 8)).all() or not (product == numbers @ numbers).all():
        raise DeviceError("it gets wrong results")
    return time.perf_counter() - begin
