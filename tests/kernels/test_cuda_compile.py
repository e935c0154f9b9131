"""Every kernel, for every dtype, becomes machine code for the GPUs of 2020 and 2022, without a GPU."""

from __future__ import annotations

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from itertools import product

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


needs_nvcc = pytest.mark.skipif(NVCC is None, reason="nvcc is not installed")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> dict[tuple[str, str], subprocess.CompletedProcess[str]]:
    """What nvcc says of each file with all its instances, by architecture, and of the file "alone"; all at once."""
    folder = tmp_path_factory.mktemp("cubins")

    def of(stem: str, architecture: str) -> subprocess.CompletedProcess[str]:
        if architecture == "alone":
            how = [f"-arch={ARCHITECTURES[-1]}", str(cuda.FOLDER / f"{stem}.cu")]
        else:
            path = folder / f"{stem}.{architecture}.cu"
            path.write_text(program(stem), encoding="utf-8")
            how = [f"-arch={architecture}", *WARNING_FREE, str(path)]
        command = [str(NVCC), "-std=c++17", "-cubin", *how, "-o", str(folder / f"{stem}.{architecture}.cubin")]
        return subprocess.run(command, capture_output=True, text=True, cwd=folder)

    jobs = list(product(STEMS, (*ARCHITECTURES, "alone")))
    with ThreadPoolExecutor() as pool:
        return dict(zip(jobs, pool.map(lambda job: of(*job), jobs), strict=True))


@needs_nvcc
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("stem", STEMS)
def test_compiles_without_warnings_or_spills(stem, architecture, compiled):
    done = compiled[stem, architecture]
    assert done.returncode == 0, done.stdout + done.stderr
    kernels = sum(len(list(kernel.instances())) for kernel in cuda.Source(stem).kernels.values())
    spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr)
    assert len(spills) >= kernels
    assert set(spills) == {("0", "0")}, done.stderr


@needs_nvcc
@pytest.mark.parametrize("stem", STEMS)
def test_a_file_compiles_alone(stem, compiled):
    done = compiled[stem, "alone"]
    assert done.returncode == 0, done.stderr


def test_every_kernel_is_declared_where_it_can_be_found():
    for stem in STEMS:
        text = (cuda.FOLDER / f"{stem}.cu").read_text(encoding="utf-8")
        assert text.count("__global__") == len(cuda.Source(stem).kernels) > 0
        assert max(map(len, text.splitlines())) <= 120


@pytest.mark.skipif(cuda_shim.cuda_headers() is None, reason="NVIDIA's headers are not installed")
@pytest.mark.parametrize("stem", STEMS)
def test_nvrtc_compiles_it(stem):
    """As CuPy compiles it: with its headers, none of those that nvcc includes by itself, and options of its own, by one
    of which denormal numbers of float32 are 0. Where nvcc is at hand, too, one dtype is enough.
    """
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    nvrtc, options = cupy.cuda.nvrtc, cupy._core.core.assemble_cupy_compiler_options(cuda.OPTIONS)
    options += ("-ftz=true", "--gpu-architecture=sm_90", "--device-as-default-execution-space")
    names = [
        kernel.spelled(instance)
        for kernel in cuda.Source(stem).kernels.values()
        for instance in kernel.instances()
        if NVCC is None or kernel.real(instance) in ("", "__nv_bfloat16")
    ]
    made = nvrtc.createProgram(cuda.source(stem), f"{stem}.cu", (), ())
    for name in names:
        nvrtc.addNameExpression(made, name)
    try:
        nvrtc.compileProgram(made, options)
    except Exception as error:
        raise AssertionError(nvrtc.getProgramLog(made)) from error
    assert nvrtc.getCUBIN(made)
    assert len({nvrtc.getLoweredName(made, name) for name in names}) == len(names)


def test_an_error_shows_its_line():
    log = 'relu.cu(9): error: identifier "nonsense" is undefined'
    text = cuda.explained("relu", "relu_gradient<float, 4>", log)
    line = (cuda.FOLDER / "relu.cu").read_text(encoding="utf-8").splitlines()[8].strip()
    assert text == f"relu.cu: relu_gradient<float, 4> does not compile\nrelu.cu:9: {line}\n{log}"
    assert issubclass(KernelError, RuntimeError)
