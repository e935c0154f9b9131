"""What a launch passes to a kernel: types, order, grid; and that the shim sees what it must see."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import cuda_shim
import numpy as np
import pytest

import minidl
from minidl.errors import ArgumentError, DeviceError, DTypeError, KernelError
from minidl.kernels import cuda
from minidl.ops.relu import relu_gradient
from minidl.window import Window

needs_shim = pytest.mark.skipif(cuda_shim.missing() is not None, reason=str(cuda_shim.missing()))
RELU = cuda.Source("relu")


@pytest.fixture
def shim():
    if problem := cuda_shim.missing():
        pytest.skip(problem)
    with cuda_shim.running():
        yield


def numbers(n=8, dtype="float32"):
    return np.ones(n, dtype)


def test_declarations_are_read():
    kernel = RELU.kernels["relu_gradient"]
    assert [(p.type, p.name, p.pointer) for p in kernel.parameters] == [
        ("real", "dy", True), ("real", "y", True), ("real", "dx", True), ("long long", "n", False)
    ]  # fmt: skip
    assert ("float", "4") in list(kernel.instances())
    assert ("__half", "8") in list(kernel.instances())
    assert len(list(kernel.instances())) == 8


def test_numbers_get_the_type_that_is_declared(shim):
    kernel = RELU.kernels["relu_gradient"]
    packed = cuda.Instance.of(kernel, ("float", "1")).pack([numbers(), numbers(), numbers(), 8])
    assert type(packed[3]) is np.int64


class RecordingModule:
    """CuPy's RawModule, as far as a launch needs it; `calls` and `prepared` are what it was asked for."""

    calls: ClassVar[list] = []
    prepared: ClassVar[list] = []

    def __init__(self, code, options, name_expressions):
        assert "#include <cuda_fp16.h>" in code and "--std=c++17" in options
        (self.name,) = name_expressions

    def get_function(self, name):
        assert name == self.name
        if "double" in name:
            raise CompileError('relu.cu(9): error: identifier "nonsense" is undefined')
        return self

    max_dynamic_shared_size_bytes = property(fset=lambda self, size: self.prepared.append(size))

    def __call__(self, grid, block, args, shared_mem):
        self.calls.append((self.name, grid, block, args, shared_mem))


class CompileError(Exception):
    pass


@pytest.fixture
def recording(monkeypatch):
    """A GPU's launches, recorded."""
    runtime, compiler = SimpleNamespace(getDevice=lambda: 0), SimpleNamespace(CompileException=CompileError)
    cupy = SimpleNamespace(RawModule=RecordingModule, cuda=SimpleNamespace(runtime=runtime, compiler=compiler))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(RecordingModule, "calls", [])
    monkeypatch.setattr(RecordingModule, "prepared", [])
    monkeypatch.setattr(cuda.CuPy, "holds", lambda self, x: True)
    cuda._loaded.cache_clear()
    with cuda.computed_by(cuda.CuPy()):
        yield RecordingModule
    cuda._loaded.cache_clear()


def test_what_cupy_is_told(recording):
    x = numbers()
    for shared in (0, 100_000, 100_000):
        RELU.launch("relu_gradient", (x.dtype, 4), (3, 2), 64, x, x, x, 2, shared=shared)
    assert [(name, grid, block, shared) for name, grid, block, _, shared in recording.calls] == [
        ("relu_gradient<float, 4>", (3, 2), (64,), shared) for shared in (0, 100_000, 100_000)
    ]
    *arrays, n = recording.calls[0][3]
    assert all(array is x for array in arrays)
    assert type(n) is np.int64 and n == 2
    assert recording.prepared == [100_000], "once, as it takes a call of the driver"


def test_a_kernel_that_does_not_compile_shows_the_line(recording):
    x = numbers(8, "float64")
    with pytest.raises(KernelError, match=r"(?s)relu_gradient<double, 1> does not compile.*relu.cu:9: .*nonsense"):
        RELU.launch("relu_gradient", (x.dtype, 1), 1, 64, x, x, x, 8)


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ([numbers(), numbers(), numbers()], ArgumentError, r"relu_gradient<float, 1>: expected 4 arguments, got 3"),
        ([numbers(), numbers(8, "float64"), numbers(), 8], DTypeError, "y: expected float32, got float64"),
        ([numbers(), numbers(16)[::2], numbers(), 8], ArgumentError, r"y: expected a contiguous array, got strides"),
        ([numbers(), [1.0], numbers(), 8], ArgumentError, "y: expected an array where the kernel computes"),
        ([numbers(), numbers(), numbers(), 8.5], ArgumentError, "n: expected int64, got 8.5"),
        ([numbers(), numbers(), numbers(), 1 << 63], ArgumentError, "n: expected int64, got 9223372036854775808"),
        ([numbers(), numbers(), numbers(), "8"], ArgumentError, "n: expected int64, got '8'"),
        ([numbers(), numbers(), numbers(), True], ArgumentError, "n: expected int64, got True"),
    ],
)
def test_what_does_not_fit_is_refused(args, error, message, shim):
    with pytest.raises(error, match=message):
        RELU.launch("relu_gradient", (np.float32, 1), 1, 32, *args)


@pytest.mark.parametrize(("grid", "block"), [((1, 1 << 16), 32), (-1, 32), (1, 1025), (1, 0), ((1, 1, 1, 1), 32)])
def test_no_gpu_has_such_a_grid(grid, block, shim):
    with pytest.raises(ArgumentError, match="no GPU has"):
        RELU.launch("relu_gradient", (np.float32, 1), grid, block, numbers(), numbers(), numbers(), 8)


def test_arrays_of_the_cpu_need_the_shim():
    with (
        minidl.settings(kernels="cuda"),
        pytest.raises(ArgumentError, match="expected an array where the kernel computes"),
    ):
        relu_gradient(numbers(), numbers())


class OnGPU(np.ndarray):
    """Stands for an array of CuPy."""


def test_arrays_of_two_devices(monkeypatch):
    x, y = numbers(), numbers()
    monkeypatch.setattr("minidl.accelerate.device_of", lambda a: "cpu" if a is x else "cuda:0")
    message = r"relu_gradient: expected arrays on one device, got \(8,\) on cpu, \(8,\) on cuda:0; move them"
    with pytest.raises(DeviceError, match=message):
        relu_gradient(x, y)


def test_geometry_lies_as_the_struct_does(tmp_path):
    text = (cuda.FOLDER / "minidl.cuh").read_text(encoding="utf-8")
    declared = text.split("struct Geometry {")[1].split(";")[0].replace("int", "").split(",")
    assert [name.strip() for name in declared] == list(cuda.WINDOW)
    window = Window.of((3, 2), stride=(2, 1), padding=((1, 0), (2, 1)), dilation=(1, 2))
    assert cuda.geometry(window, 9, 7).tolist() == (9, 7, 4, 8, 3, 2, 2, 1, 1, 2, 1, 2)


# --- the shim catches -------------------------------------------------------------------------------------------

FAULTY = {
    "a missing barrier": (
        "SHARED(float, s, [64]); s[threadIdx.x] = x[threadIdx.x]; BARRIER y[threadIdx.x] = s[63 - threadIdx.x];",
        "__syncthreads();",
    ),
    "a missing barrier between warps that wait inside": (
        "SHARED(float, s, [64]); s[threadIdx.x] = x[threadIdx.x]; __syncwarp(); BARRIER "
        "y[threadIdx.x] = s[63 - threadIdx.x];",
        "__syncthreads();",
    ),
    "shared memory that nobody wrote": (
        "SHARED(float, s, [64]); if (threadIdx.x BOUND) s[threadIdx.x] = x[threadIdx.x]; __syncthreads(); "
        "y[threadIdx.x] = s[63 - threadIdx.x];",
        "< 64",
    ),
    "a write past the end": ("y[threadIdx.x BOUND] = x[63 - threadIdx.x];", ""),
    "a race": ("SHARED(float, s, [1]); s[0] = 0; __syncthreads(); ADD y[threadIdx.x] = x[63 - threadIdx.x];", ""),
    "a barrier for some": (
        "if (threadIdx.x BOUND) __syncthreads(); y[threadIdx.x] = x[63 - threadIdx.x];",
        "< 64",
    ),
    "lanes that part": (
        "float v = x[63 - threadIdx.x]; if (threadIdx.x % 32 BOUND) v = __shfl_sync(~0u, v, threadIdx.x); "
        "else __syncthreads(); y[threadIdx.x] = v;",
        "< 32",
    ),
    "a copy that nobody waited for": (
        "SHARED(float, s, [64]); shim::copy_async(&s[threadIdx.x], &x[threadIdx.x], 4, false); shim::commit_copies(); "
        "shim::wait_for_copies(NEWEST); __syncthreads(); y[threadIdx.x] = s[63 - threadIdx.x];",
        "0",
    ),
}
CATCHES = {
    "a missing barrier": ("BARRIER", "", "the result depends on the order of threads"),
    "a missing barrier between warps that wait inside": ("BARRIER", "", "the result depends on the order of threads"),
    "shared memory that nobody wrote": ("BOUND", "< 60", None),
    "a write past the end": ("BOUND", "+ 1", "written outside of an array"),
    "a race": ("ADD", "s[0] = threadIdx.x; y[0] = s[0] + y[64 - 1];", "the result depends on the order of threads"),
    "a barrier for some": ("BOUND", "< 20", "some threads wait at __syncthreads, others have ended"),
    "lanes that part": ("BOUND", "< 20", "threads wait for each other at different barriers"),
    "a copy that nobody waited for": ("NEWEST", "1", "the result depends on the order of threads"),
}


def run_by_hand(body, x, y, flavour="plain"):
    """Run `void f(const float* x, float* y) { body }` for one block of 64 threads; what the shim says."""
    kernel = f"__global__ void f(const float* x, float* y) {{ {body} }}"
    return cuda_shim.by_hand("minidl.cuh", kernel, 64, x, y, flavour=flavour)


@needs_shim
@pytest.mark.parametrize("fault", FAULTY)
def test_the_shim_catches(fault):
    body, right = FAULTY[fault]
    name, wrong, message = CATCHES[fault]
    x = np.arange(64, dtype=np.float32)
    y = np.zeros(64, np.float32)
    assert run_by_hand(body.replace(name, right), x, y) is None
    np.testing.assert_array_equal(y, x[::-1])
    said = run_by_hand(body.replace(name, wrong), x, y)
    if message:
        assert said is not None and message in said
    else:
        assert np.isnan(y[:4]).all() and not np.isnan(y[4:]).any()


OUT_OF_BOUNDS = {
    "asan": ("float v = x[threadIdx.x + 1]; y[threadIdx.x] = v;", "AddressSanitizer"),
    "asan, shared": ("SHARED(float, s, [63]); s[threadIdx.x] = x[0]; y[threadIdx.x] = s[0];", "index 63 out of bounds"),
    "asan, undefined": (
        "int n = threadIdx.x + 2147483600; y[threadIdx.x] = n + 100 + x[0];",
        "signed integer overflow",
    ),
    "tsan": ("SHARED(float, s, [1]); s[0] = x[threadIdx.x]; y[threadIdx.x] = 1;", "data race"),
}


@needs_shim
@pytest.mark.parametrize("fault", OUT_OF_BOUNDS)
def test_a_sanitizer_catches(fault):
    body, message = OUT_OF_BOUNDS[fault]
    flavour = fault.partition(",")[0]
    done = sanitized(flavour, f"{__name__}.run_by_hand({body!r}, x, y, {flavour!r})")
    assert done.returncode != 0
    assert message in done.stderr
    done = sanitized(
        flavour, f"{__name__}.run_by_hand('y[threadIdx.x] = x[threadIdx.x];', x, y, {flavour!r}); print(y[5])"
    )
    assert (done.returncode, done.stdout) == (0, "5.0\n"), done.stderr


def sanitized(flavour, call):
    here = os.path.dirname(__file__)  # noqa: PTH120
    script = (
        f"import sys; sys.path[:0] = [{here!r}, {os.path.dirname(here)!r}]\n"  # noqa: PTH120
        f"import numpy as np, {__name__}\n"
        f"x, y = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)\n{call}\n"
    )
    runtime = subprocess.check_output(["g++", f"-print-file-name=lib{flavour}.so"], text=True).strip()
    environment = {
        **os.environ,
        "LD_PRELOAD": runtime,
        "ASAN_OPTIONS": "detect_leaks=0",
        "TSAN_OPTIONS": "halt_on_error=1",
    }
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300)


@needs_shim
@pytest.mark.skipif(os.environ.get("HYPOTHESIS_PROFILE") != "thorough", reason="HYPOTHESIS_PROFILE=thorough: minutes")
@pytest.mark.parametrize("file", ["test_cuda_softmax.py", "test_cuda_normalisations.py"])
def test_no_two_threads_race(file):
    """Every CUDA thread a thread of the system, and the thread sanitizer watching."""
    runtime = subprocess.check_output(["g++", "-print-file-name=libtsan.so"], text=True).strip()
    environment = {**os.environ, "MINIDL_SHIM": "tsan", "LD_PRELOAD": runtime, "TSAN_OPTIONS": "halt_on_error=1"}
    environment["HYPOTHESIS_PROFILE"] = "minidl"
    command = [sys.executable, "-m", "pytest", "-q", "-k", "cuda-shim and float32", str(Path(__file__).with_name(file))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
