"""The machine that a measurement was made on: its name, its versions, its memory."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from minidl import __version__

MB = 1e6
GB = 1e9


def machine() -> dict[str, Any]:
    """What ran it, as JSON can hold it."""
    total = _meminfo("MemTotal")
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": total and round(total / GB, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Python, minidl, and those of the packages that are installed."""
    found = {"python": platform.python_version(), "minidl": __version__}
    for package in ("numpy", "numba", *packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    """The processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def nvidia_smi(bus: str) -> dict[str, str]:
    """Driver, clocks and power of the GPU at a place of the PCI bus; nothing where NVIDIA's tool does not tell."""
    fields = ("driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.draw", "power.limit")
    command = ["nvidia-smi", f"--id={bus}", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(fields, (word.strip() for word in said.split(",")), strict=False))


def available_memory() -> int | None:
    """How many bytes a process may still take, in the machine and in its container; None where that is unknown."""
    limits = [_meminfo("MemAvailable"), _container_room()]
    return min((limit for limit in limits if limit is not None), default=None)


def _meminfo(field: str) -> int | None:
    file = Path("/proc/meminfo")
    found = re.search(rf"{field}:\s*(\d+) kB", file.read_text()) if file.exists() else None
    return int(found[1]) * 1024 if found else None


def _container_room() -> int | None:
    try:
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current"))
    except OSError:
        return None
    return max(0, int(limit) - int(used)) if limit.isdecimal() else None


# --- peak memory ----------------------------------------------------------------------------------------------------


def peak_rss() -> int:
    """The largest resident set that this process has had, in bytes; 0 where that is unknown.

    On Linux since the last `reset_peak_rss`, elsewhere since its start.
    """
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        return int(found[1]) * 1024 if found else 0
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def reset_peak_rss() -> bool:
    """Let `peak_rss` begin anew from what is needed now; whether the system can do that."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what the comparison of results has left behind
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
