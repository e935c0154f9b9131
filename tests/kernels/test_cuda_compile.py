"""Every kernel, for every dtype, becomes machine code for the GPUs of 2020 and 2022, without a GPU."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import cuda_shim
import pytest

from minidl.errors import KernelError
from minidl.kernels import cuda

STEMS = sorted(path.stem for path in cuda.FOLDER.glob("*.cu"))
ARCHITECTURES = ("sm_80", "sm_90")
WARNING_FREE = ("-Werror", "all-warnings", "-Xptxas", "-v,-warn-spills,-warn-lmem-usage")
NVCC = shutil.which("nvcc")


def program(stem: str) -> str:
    """A file with all its instances, as the compiler drops a template that nobody uses."""
    text = cuda.source(stem)
    kernels = cuda.Source(stem).kernels.values()
    spelled = [(kernel, instance) for kernel in kernels for instance in kernel.instances() if kernel.template]
    lines = [f"(void*){kernel.spelled(instance)}," for kernel, instance in spelled]
    return "\n".join([text, "void* const used[] = {", *lines, "};", "void* const* use() { return used; }", ""])


def by_nvcc(stem: str, architecture: str, folder: Path) -> str:
    path = folder / f"{stem}.{architecture}.cu"
    path.write_text(program(stem), encoding="utf-8")
    assert NVCC
    command = [NVCC, "-std=c++17", f"-arch={architecture}", "-cubin", *WARNING_FREE, str(path), "-o", f"{path}bin"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


@pytest.mark.skipif(NVCC is None, reason="nvcc is not installed")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("stem", STEMS)
def test_compiles_without_warnings_or_spills(stem, architecture, tmp_path):
    log = by_nvcc(stem, architecture, tmp_path)
    kernels = sum(len(list(kernel.instances())) for kernel in cuda.Source(stem).kernels.values())
    spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log)
    assert len(spills) >= kernels
    assert set(spills) == {("0", "0")}, log
    for registers in re.findall(r"Used (\d+) registers", log):
        assert int(registers) <= 255


@pytest.mark.skipif(NVCC is None, reason="nvcc is not installed")
@pytest.mark.parametrize("stem", STEMS)
def test_a_file_compiles_alone(stem, tmp_path):
    command = [str(NVCC), "-std=c++17", "-arch=sm_90", "-cubin", f"{stem}.cu", "-o", str(tmp_path / "out.cubin")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cuda.FOLDER)
    assert done.returncode == 0, done.stderr


def test_every_kernel_is_declared_where_it_can_be_found():
    for stem in STEMS:
        text = (cuda.FOLDER / f"{stem}.cu").read_text(encoding="utf-8")
        assert text.count("__global__") == len(cuda.Source(stem).kernels) > 0
        assert max(map(len, text.splitlines())) <= 120


@pytest.mark.skipif(cuda_shim.cuda_headers() is None, reason="NVIDIA's headers are not installed")
@pytest.mark.parametrize("stem", STEMS)
def test_nvrtc_compiles_it(stem):
    """As CuPy compiles it, with none of the headers that nvcc includes by itself."""
    nvrtc = pytest.importorskip("cupy", reason="CuPy is not installed").cuda.nvrtc
    names = [k.spelled(i) for k in cuda.Source(stem).kernels.values() for i in k.instances()]
    made = nvrtc.createProgram(cuda.source(stem), f"{stem}.cu", (), ())
    for name in names:
        nvrtc.addNameExpression(made, name)
    try:
        nvrtc.compileProgram(made, (*cuda.OPTIONS, "--gpu-architecture=sm_90", f"-I{cuda_shim.cuda_headers()}"))
    except Exception as error:
        raise AssertionError(nvrtc.getProgramLog(made)) from error
    assert nvrtc.getCUBIN(made)


def test_an_error_shows_its_line():
    log = 'relu.cu(9): error: identifier "nonsense" is undefined'
    text = cuda.explained("relu", "relu_gradient<float, 4>", log)
    line = (cuda.FOLDER / "relu.cu").read_text(encoding="utf-8").splitlines()[8].strip()
    assert text == f"relu.cu: relu_gradient<float, 4> does not compile\nrelu.cu:9: {line}\n{log}"
    assert issubclass(KernelError, RuntimeError)
