"""What stands in a GPU's way, told in one line with the cure; and `minidl doctor`, which tells it all."""

from __future__ import annotations

import builtins
import ctypes
import json
import re
import subprocess
import sys
from pathlib import Path

import cuda_shim
import fake_cupy
import pytest

from minidl import cli, devices, doctor
from minidl.devices import driver_cuda, gpu_problem, parse_device
from minidl.errors import DeviceError

ROOT = Path(__file__).parents[1]


def situation(monkeypatch, *, driver=None, packages=(), module=None, unusable=None):
    """A driver for a CUDA, packages that are installed, what importing CuPy does, what asking for GPUs says."""
    monkeypatch.setattr(devices, "driver_cuda", lambda: driver)
    monkeypatch.setattr(doctor, "driver_cuda", lambda: driver)
    monkeypatch.setattr(devices, "cupy_packages", lambda: list(packages))
    monkeypatch.setattr(doctor, "cupy_packages", lambda: list(packages))
    if isinstance(module, Exception):

        def broken():
            raise module

        monkeypatch.setattr(devices, "cupy_module", broken)
        monkeypatch.setattr(doctor, "cupy_module", broken)
        return

    def count():
        raise RuntimeError(unusable)

    cupy = sys.modules["cupy"]
    cupy.is_available = lambda: unusable is None
    if unusable is not None:
        cupy.cuda.runtime.getDeviceCount = count


ABSENT = ModuleNotFoundError("No module named 'cupy'", name="cupy")
INSUFFICIENT = "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"
SITUATIONS = {
    "no CuPy, and a driver for CUDA 13": (
        {"driver": 13000, "module": ABSENT},
        "CuPy is not installed; pip install 'minidl[gpu13]'",
    ),
    "no CuPy, and a newer driver": (
        {"driver": 14010, "module": ABSENT},
        "CuPy is not installed; pip install 'minidl[gpu13]'",
    ),
    "no CuPy, and a driver for CUDA 12": (
        {"driver": 12080, "module": ABSENT},
        "CuPy is not installed; pip install 'minidl[gpu12]'",
    ),
    "no CuPy, and an old driver": (
        {"driver": 11040, "module": ABSENT},
        "CuPy is not installed; install a driver for CUDA 12 or newer, then pip install 'minidl[gpu12]'",
    ),
    "neither": (
        {"module": ABSENT},
        "CuPy is not installed; install NVIDIA's driver, and pip install 'minidl[gpu13]' (gpu12 where the driver knows "
        "CUDA 12 only)",
    ),
    "a broken CuPy": (
        {"driver": 13000, "packages": ["cupy-cuda13x"], "module": ImportError("libfoo.so: cannot open\nmore")},
        "CuPy cannot be imported (libfoo.so: cannot open); pip install 'minidl[gpu13]'",
    ),
    "CuPy without a driver": (
        {"packages": ["cupy-cuda13x"], "unusable": INSUFFICIENT},
        "CuPy 14.2.0 for CUDA 13 is installed, but no NVIDIA driver; install one for CUDA 13 or newer",
    ),
    "a driver too old for CuPy": (
        {"driver": 12040, "packages": ["cupy-cuda13x"], "unusable": INSUFFICIENT},
        "CuPy 14.2.0 for CUDA 13 is installed, but the driver only knows CUDA 12.4; pip uninstall -y cupy-cuda13x && "
        "pip install 'minidl[gpu12]' (or a newer driver)",
    ),
    "no GPU": (
        {"driver": 13000, "packages": ["cupy-cuda13x"], "unusable": "cudaErrorNoDevice: no CUDA-capable device\n"},
        "CuPy 14.2.0 for CUDA 13 is installed, but finds no usable GPU (cudaErrorNoDevice: no CUDA-capable device); "
        "see what nvidia-smi shows, and CUDA_VISIBLE_DEVICES",
    ),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_what_stands_in_the_way(name, stand_in, monkeypatch, tmp_path, capsys):
    options, said = SITUATIONS[name]
    situation(monkeypatch, **options)
    assert gpu_problem() == said
    with pytest.raises(DeviceError, match=f"^device 'cuda': {re.escape(said)}, or use device 'cpu'$"):
        parse_device("cuda")
    monkeypatch.chdir(tmp_path)
    for arguments in (["train", "--out", "run"], ["gradcheck", "relu"]):
        monkeypatch.setattr(sys, "argv", ["minidl", *arguments, "--device", "cuda:0"])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        _, err = capsys.readouterr()
        assert stop.value.code == 1 and err == f"minidl: device 'cuda:0': {said}, or use device 'cpu'\n"
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_that_is_not_there(stand_in):
    assert (parse_device("cuda"), parse_device("cuda:1"), gpu_problem()) == ("cuda:0", "cuda:1", None)
    with pytest.raises(DeviceError, match=r"^device 'cuda:2': this machine has 2 usable GPUs, from cuda:0 to cuda:1$"):
        parse_device("cuda:2")
    stand_in.cuda.runtime.getDeviceCount = lambda: 1
    with pytest.raises(DeviceError, match=r"^device 'cuda:1': this machine has 1 usable GPU, named cuda:0$"):
        parse_device("cuda:1")


@pytest.mark.parametrize(("status", "version", "known"), [(0, 12080, 12080), (0, 0, None), (100, 12080, None)])
def test_the_driver_is_asked(status, version, known, monkeypatch):
    class Library:
        def __init__(self, name):
            assert name in ("libcuda.so.1", "nvcuda.dll")

        def cuDriverGetVersion(self, pointer):  # noqa: N802
            pointer._obj.value = version
            return status

    monkeypatch.setattr(ctypes, "CDLL", Library)
    assert driver_cuda() == known


def test_a_library_that_is_no_driver(monkeypatch):
    for library in (lambda name: object(), lambda name: (_ for _ in ()).throw(OSError("not found"))):
        monkeypatch.setattr(ctypes, "CDLL", library)
        assert driver_cuda() is None


# --- minidl doctor ------------------------------------------------------------------------------------------------


def verdicts(report):
    return {found.name: (found.ok, found.text) for found in report.devices}


@pytest.mark.skipif(cuda_shim.missing() is not None, reason=str(cuda_shim.missing()))
def test_a_machine_with_gpus(monkeypatch):
    with fake_cupy.installed("auto"):
        monkeypatch.setattr(doctor, "driver_cuda", lambda: 13000)
        monkeypatch.setattr(doctor, "cupy_packages", lambda: ["cupy-cuda13x"])
        report = doctor.examine()
    assert report.ok and all(found.ok for found in (*report.installed, *report.devices)), str(report)
    assert list(verdicts(report)) == ["cpu", "cuda:0", "cuda:1"]
    works = r"works: Stand-in GPU, compute capability 9.0, 20.0 of 80.0 GiB free; a first kernel took \d+\.\d s"
    assert re.fullmatch(works, verdicts(report)["cuda:1"][1])
    values = report.devices[1].values
    assert (values["gpu"], values["free_bytes"], values["total_bytes"]) == ("Stand-in GPU", 20 << 30, 80 << 30)


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_machine_whose_gpu_cannot_be_used(name, stand_in, monkeypatch):
    options, said = SITUATIONS[name]
    situation(monkeypatch, **options)
    report = doctor.examine()
    assert report.ok
    assert verdicts(report)["cuda"] == (False, f"cannot be used: {said}")
    assert f"✗ cuda           cannot be used: {said}" in str(report).splitlines()


def test_a_gpu_that_does_not_compute(stand_in, monkeypatch):
    situation(monkeypatch, driver=12080)

    def refuse(*args):
        raise RuntimeError("CuPy failed to load libnvrtc.so.12: no such file\nAnd more")

    monkeypatch.setattr(fake_cupy.Kernels, "launch", refuse)
    report = doctor.examine()
    expected = (
        "Stand-in GPU is there, but does not compute (CuPy failed to load libnvrtc.so.12: no such file); "
        "pip install 'minidl[gpu12]'"
    )
    assert verdicts(report)["cuda:0"] == (False, expected) and report.ok


def test_two_cupys(stand_in, monkeypatch):
    situation(monkeypatch, driver=13000, packages=["cupy-cuda12x", "cupy-cuda13x"])
    found = {found.name: found for found in doctor.examine().installed}["CuPy"]
    assert not found.ok and found.text.startswith("cupy-cuda12x and cupy-cuda13x are both installed")


def exploding(*args, **kwargs):
    raise Surprise("the first line\nthe second")


class Surprise(Exception):  # noqa: N818
    """Something that nobody has thought of."""


@pytest.mark.parametrize("name", doctor.QUESTIONS)
@pytest.mark.parametrize("error", [Surprise, SystemExit, OSError, MemoryError])
def test_whatever_goes_wrong_the_rest_is_told(name, error, monkeypatch):
    def fail():
        raise error("the first line\nthe second")

    monkeypatch.setitem(doctor.QUESTIONS, name, fail)
    monkeypatch.setattr(doctor, "trial", lambda device, kernels: 0.1)
    report = doctor.examine()
    assert {found.name for found in report.installed} == set(doctor.QUESTIONS) and report.ok
    (found,) = (found for found in report.installed if found.name == name)
    assert (found.ok, found.text) == (False, f"{error.__name__}: the first line")


@pytest.mark.parametrize("name", ["threadpoolctl", "numba"])
def test_a_package_that_cannot_be_imported(name, monkeypatch):
    importing = builtins.__import__

    def refuse(wanted, *args, **kwargs):
        if wanted == name:
            raise ImportError(f"{name} is broken")
        return importing(wanted, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    report = doctor.examine()
    assert report.ok and f"ImportError: {name} is broken" in str(report)


def test_without_numba_the_cpu_works_slowly(tmp_path):
    (tmp_path / "numba.py").write_text("raise ImportError('broken for this test')")
    done = subprocess.run(
        [sys.executable, "-m", "minidl", "doctor", "--json"],
        cwd=tmp_path, env={"PYTHONPATH": f"{tmp_path}:{ROOT}"}, capture_output=True, text=True,
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert done.returncode == 0 and report["ok"]
    assert report["devices"][0]["text"].startswith(
        "works, but slowly: kernels='numba': Numba cannot be imported (broken"
    )
    assert report["devices"][0]["text"].endswith("pip install --upgrade numba")


def test_a_cpu_that_does_not_work(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "trial", exploding)
    monkeypatch.setattr(sys, "argv", ["minidl", "doctor"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1 and "✗ cpu            Surprise: the first line" in capsys.readouterr().out.splitlines()
