"""Whole runs on a GPU, for which a stand-in serves: whoever forgets to move an array fails."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import cuda_shim
import fake_cupy
import numpy as np
import pytest

from minidl import Key, cli, gradcheck, settings
from minidl.arrays import device_of, float_dtype, to_device, to_host
from minidl.catalogue import LAYERS, LOSSES
from minidl.devices import using
from minidl.errors import ArgumentError, DeviceError, DeviceMemoryError, NonFiniteError
from minidl.inference import fuse, inference
from minidl.layers import BatchNorm2d, Conv2d, Dropout, Flatten, GlobalMaxPool2d, Linear, MaxPool2d, ReLU, Sequential
from minidl.losses import MeanSquaredError, SoftmaxCrossEntropy
from minidl.optim import SGD
from minidl.training import Config, load_run, resume, train
from minidl.training.checkpoint import load_checkpoint
from minidl.training.report import Reporter
from minidl.warmup import warm_up

CONFIG = Config(model="lenet5", data="synthetic:28x28x1:3:20", epochs=2, batch=8, lr=0.05, device="cuda:1")
DROPPING = replace(
    CONFIG, model="alexnet_mini", data="synthetic:32x32x3:3:8", epochs=1, optimizer="adamw", lr=1e-3,
    label_smoothing=0.1, checkpoint_every=1,
)  # fmt: skip


@pytest.fixture(params=["reference", "cuda"])
def gpu(request):
    """The stand-in, with the ops' own bodies and with the GPU's kernels."""
    if request.param == "cuda" and (problem := cuda_shim.missing()):
        pytest.skip(problem)
    with fake_cupy.installed("auto" if request.param == "cuda" else "reference") as cupy:
        cupy.computes_by = request.param
        yield cupy


# --- the stand-in -------------------------------------------------------------------------------------------------


def test_it_has_only_what_cupy_has():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed, so its names cannot be compared")
    for name in (*fake_cupy.FUNCTIONS, *fake_cupy.CONSTANTS, "is_available", "__version__"):
        assert hasattr(cupy, name), name
    own = [name for name, value in vars(fake_cupy.ndarray).items() if callable(value) or isinstance(value, property)]
    assert {"reshape", "T", "__radd__", "__imul__", "shape", "get"} <= set(own)
    for name in own:
        assert hasattr(cupy.ndarray, name), name
    assert issubclass(cupy.cuda.memory.OutOfMemoryError, MemoryError)
    real, ours = cupy.cuda.memory.OutOfMemoryError(1 << 20, 1 << 30), fake_cupy.OutOfMemoryError(1 << 20, 1 << 30)
    assert str(real) == str(ours)


@pytest.mark.parametrize(
    ("mix", "error", "words"),
    [
        (lambda x, host: x + host, TypeError, "Unsupported type"),
        (lambda x, host: host * x, TypeError, "Unsupported type"),
        (lambda x, host: np.asarray(x), TypeError, "Implicit conversion to a NumPy array is not allowed"),
        (lambda x, host: np.concatenate([x, host]), TypeError, "Implicit conversion"),
        (lambda x, host: x[host.astype(int)], TypeError, "Unsupported type"),
        (lambda x, host: x.__setitem__(0, host[0:1]), TypeError, "Unsupported type"),
        (lambda x, host: to_device(x, "cuda:1") + 1, ValueError, "must be same as the current device"),
        (lambda x, host: x.tostring(), AttributeError, "tostring"),
        (lambda x, host: x.flags.writeable, AttributeError, "writeable"),
        (lambda x, host: range(x.sum()), TypeError, "integer"),
    ],
)
def test_it_refuses_what_cupy_refuses(mix, error, words, stand_in):
    host = np.ones(3)
    with pytest.raises(error, match=words):
        mix(stand_in.asarray(host), host)


def test_it_computes(stand_in):
    x = stand_in.asarray(np.arange(6.0).reshape(2, 3))
    assert (np.float32(2) * x).get().tolist() == [[0, 2, 4], [6, 8, 10]]
    assert x.sum().shape == () and float(x.sum()) == 15 and type(x.sum()) is stand_in.ndarray
    before = x
    x += 1
    x.reshape(-1)[0] = 7
    assert x is before and x.get().tolist() == [[7, 2, 3], [4, 5, 6]]
    assert stand_in.maximum(x, 4, out=x) is x and float(x.min()) == 4


# --- half precision -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("line", LAYERS)
def test_half_precision_stays_half(line, dtype, gpu):
    pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed, so there is no bfloat16")
    make, shape = LAYERS[line]
    with using("cuda:1"):
        layer = make().to("cuda:1", dtype)
        x = to_device(np.random.default_rng(0).standard_normal(shape).astype(float_dtype(dtype)), "cuda:1")
        y, cache = layer.forward(x, train=True, key=Key(0))
        dx = layer.backward(y, cache)
    found = {"y": y, "dx": dx} | {name: p.grad for name, p in layer.parameters().items()}
    assert {name: array.dtype.name for name, array in found.items()} == dict.fromkeys(found, dtype)


# --- gradients ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", LAYERS)
def test_gradients_of_layers(line, gpu):
    make, shape = LAYERS[line]
    report = gradcheck.check(make(), shape, device="cuda:1")
    assert report.passed, report


@pytest.mark.parametrize("line", LOSSES)
def test_gradients_of_losses(line, gpu):
    make, shape, targets = LOSSES[line]
    report = gradcheck.check(make(), shape, targets, device="cuda:1")
    assert report.passed, report


def test_a_check_computes_where_its_subject_is(gpu):
    layer, x = Linear(3, 2).to("cuda"), np.ones((4, 3))
    fetched = fake_cupy.statistics.fetched
    assert gradcheck.check(layer, (4, 3), mode="full").passed and fake_cupy.statistics.fetched > fetched
    assert gradcheck.check(Linear(3, 2), to_device(x, "cuda")).passed
    assert gradcheck.check(layer, x, device="cpu").passed and device_of(layer.weight.value) == "cuda:0"


def test_a_wrong_gradient_is_found_on_the_gpu_too(gpu):
    class Wrong(Linear):
        def backward(self, dy, cache, *, input_gradient=True):
            dx = super().backward(dy, cache, input_gradient=input_gradient)
            self.weight.grad[1, 1] *= 2
            return dx

    report = gradcheck.check(Wrong(30, 20), (4, 30), device="cuda")
    assert not report.passed and report.worst.place == "weight[1, 1]"


# --- trainings ----------------------------------------------------------------------------------------------------


class Notes(Reporter):
    """Remembers what is said; presses Ctrl-C at a step."""

    def __init__(self, interrupt_at=None):
        self.notes, self.interrupt_at = [], interrupt_at

    def note(self, text):
        self.notes.append(text)

    def step(self, trainer, loss, lr):
        if trainer.step == self.interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)


def assert_close(a, b, rtol=0.0):
    """Two checkpoints with the same arrays: to the bit, or nearly."""
    (arrays, state), (others, other) = load_checkpoint(a / "last.safetensors"), load_checkpoint(b / "last.safetensors")
    assert arrays.keys() == others.keys() and state["step"] == other["step"]
    for name, array in arrays.items():
        scale = np.abs(others[name]).max(initial=0)
        np.testing.assert_allclose(array, others[name], rtol=rtol, atol=rtol * scale, err_msg=name)
    for row, there in zip(state["history"], other["history"], strict=True):
        for name in row.keys() - {"images_per_s", "waiting"}:
            assert row[name] == pytest.approx(there[name], rel=rtol, abs=0), name


@pytest.mark.parametrize("config", [CONFIG, DROPPING], ids=["lenet5", "alexnet_mini"])
def test_a_training_is_that_of_the_cpu(config, gpu, tmp_path):
    result = train(config, tmp_path / "gpu")
    with settings(kernels="reference"):
        train(replace(config, device="cpu"), tmp_path / "cpu")
    assert result.finished
    # The stand-in computes with NumPy, so the bodies of the ops give the same bits.
    assert_close(tmp_path / "gpu", tmp_path / "cpu", rtol=0.0 if gpu.computes_by == "reference" else 1e-3)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_training_in_half_precision(precision, gpu, tmp_path):
    if precision == "bf16":
        pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed, so there is no bfloat16")
    result = train(replace(CONFIG, precision=precision, checkpoint_every=1), tmp_path / "gpu")
    assert result.finished and np.isfinite(result.train_loss)
    assert resume(tmp_path / "gpu", epochs=3).finished


def test_a_log_has_every_step_that_the_cpu_s_has(stand_in, tmp_path):
    config = replace(CONFIG, data="synthetic:28x28x1:3:180", batch=4, epochs=1)

    def losses(folder):
        entries = map(json.loads, (tmp_path / folder / "log.jsonl").read_text().splitlines())
        return [(entry["step"], entry["loss"]) for entry in entries if entry["event"] == "step"]

    train(config, tmp_path / "gpu")
    train(replace(config, device="cpu"), tmp_path / "cpu")
    assert losses("gpu") == losses("cpu") and len(losses("gpu")) > 1


def test_the_host_seldom_waits(stand_in, tmp_path):
    counts = []
    for images in 60, 220:
        config = replace(CONFIG, data=f"synthetic:28x28x1:3:{images}", batch=2, epochs=1)
        before = fake_cupy.statistics.fetched
        steps = train(config, tmp_path / str(images)).steps
        counts.append((steps, fake_cupy.statistics.fetched - before))
    (few, seldom), (many, often) = counts
    assert many - few > 60 and often - seldom <= (many - few) / 10


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("here", ["cuda:1", "cuda:0", "cpu"])
def test_a_run_goes_on_on_any_device(here, stand_in, tmp_path):
    train(CONFIG, tmp_path / "whole")
    broken_off = train(replace(CONFIG, checkpoint_every=1), tmp_path / "part", Notes(interrupt_at=2))
    assert not broken_off.finished
    notes = Notes()
    assert resume(tmp_path / "part", device=here, reporter=notes).finished
    assert_close(tmp_path / "part", tmp_path / "whole")
    said = [note for note in notes.notes if note.startswith("the device was Stand-in GPU")]
    assert len(said) == (here == "cpu") and all(" and is the processor: the bits may differ" in note for note in said)


def test_a_run_of_the_cpu_goes_on_on_the_gpu(stand_in, tmp_path):
    train(replace(CONFIG, device="cpu", epochs=1), tmp_path)
    assert resume(tmp_path, epochs=2, device="cuda").epochs == 2
    assert load_run(tmp_path).config.device == "cuda"


def test_a_trained_net_serves_on_both(gpu, tmp_path):
    from PIL import Image

    train(replace(CONFIG, device="cuda"), tmp_path / "run")
    Image.fromarray(np.full((30, 40), 90, np.uint8)).save(tmp_path / "a.png")
    there, here = load_run(tmp_path / "run", "cuda:1"), load_run(tmp_path / "run", "cpu")
    assert device_of(there.net["conv1"].weight.value) == "cuda:1" and device_of(here.net["conv1"].weight.value) == "cpu"
    assert there.evaluate()[0].loss == pytest.approx(here.evaluate()[0].loss, rel=1e-5)
    for (name, p), (other, q) in zip(there.predict(tmp_path / "a.png"), here.predict(tmp_path / "a.png"), strict=True):
        assert name == other and p == pytest.approx(q, rel=1e-4)


def test_a_loss_that_is_not_finite(stand_in, tmp_path):
    with pytest.raises(NonFiniteError, match=r"step \d+, lr 1e\+30: the loss is .*last good checkpoint is .*last"):
        train(replace(CONFIG, lr=1e30, schedule="constant", data="synthetic:28x28x1:3:300"), tmp_path)
    arrays, _ = load_checkpoint(tmp_path / "last.safetensors")
    assert all(np.isfinite(array).all() for array in arrays.values())


def test_the_command_line(stand_in, tmp_path, monkeypatch, capsys):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.full((30, 40), 90, np.uint8)).save("a.png")

    def minidl(*arguments):
        monkeypatch.setattr(sys, "argv", ["minidl", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code
        return capsys.readouterr().out

    gpu = ("--device", "cuda:1", "--json")
    model = ("--model", "lenet5", "--data", "synthetic:28x28x1:3:8", "--epochs", 1, "--batch", 4)
    before = fake_cupy.statistics.fetched
    assert json.loads(minidl("train", *model, "--out", "run", *gpu))["finished"]
    assert json.loads(minidl("train", "--resume", "run", "--epochs", 2, *gpu))["epochs"] == 2
    assert json.loads(minidl("eval", "run", *gpu))["images"] > 0
    assert json.loads(minidl("predict", "run", "a.png", *gpu))["images"][0]["predictions"]
    assert json.loads(minidl("gradcheck", "maxpool2d", "softmaxcrossentropy", *gpu))["passed"]
    minidl("gradcheck", "relu", "--plot", "relu.png", *gpu[:2])
    assert Path("relu.png").exists() and fake_cupy.statistics.fetched > before


# --- copies, and arrays in the wrong place ------------------------------------------------------------------------


def test_copies_stay_on_their_device(gpu):
    net = Sequential(
        conv=Conv2d(2, 3, kernel_size=3),
        norm=BatchNorm2d(3),
        relu=ReLU(),
        drop=Dropout(),
        flat=Flatten(),
        fc=Linear(27, 2),
    )
    with using("cuda:1"):
        net.to("cuda:1")
        x = to_device(np.random.default_rng(0).standard_normal((2, 5, 5, 2)).astype(np.float32), "cuda:1")
        for copy in fuse(net), inference(net):
            assert {device_of(value) for value in copy.state_dict().values()} == {"cuda:1"}
            np.testing.assert_allclose(to_host(copy(x)), to_host(net(x)), rtol=1e-5, atol=1e-6)


@pytest.fixture
def mixed(stand_in):
    x = np.ones((2, 4, 4, 3), np.float32)
    return x, stand_in.asarray(x)


def backward(layer, x, dy):
    return lambda: layer.backward(dy, layer.forward(x, train=True)[1])


def stepped(parameter, gradient):
    parameter.grad = gradient
    SGD({"weight": parameter}).step(0.1)


@pytest.mark.parametrize(
    ("mix", "words"),
    [
        (lambda h, d: lambda: Conv2d(3, 2, 1).to("cuda")(h),
         r"Conv2d\(3→2, 1×1\): its weight is on cuda:0 but x is on cpu; move one: net.to\('cpu'\) or to_device\(x"),
        (lambda h, d: lambda: Sequential(fc=Linear(3, 2))(d[:, 0, 0]), r"fc: Linear\(3→2\): its weight is on cpu"),
        (lambda h, d: backward(ReLU(), d, h), r"ReLU\(\): dy is on cpu but the cache is on cuda:0"),
        (lambda h, d: backward(MaxPool2d(2), h, d[:, ::2, ::2]), r"dy is on cuda:0 but the cache is on cpu"),
        (lambda h, d: backward(GlobalMaxPool2d(), d, h[:, :1, :1]), r"dy is on cpu but the cache is on cuda:0"),
        (lambda h, d: lambda: MeanSquaredError().forward(d, h),
         r"targets: expected an array on cuda:0, got one on cpu; move it: to_device\(…, 'cuda:0'\)"),
        (lambda h, d: lambda: SoftmaxCrossEntropy(weight=d[0, 0, 0]), "weight: expected an array on cpu, got one on"),
        (lambda h, d: lambda: (lambda loss: loss.backward(loss.forward(d, d)[1], h))(MeanSquaredError("none")),
         "scale: expected an array on cuda:0, got one on cpu"),
        (lambda h, d: lambda: Linear(4, 3).to("cuda").weight.accumulate(h[0, 0]), "gradient: expected an array on cu"),
        (lambda h, d: lambda: stepped(Linear(4, 3).to("cuda").weight, h[0, 0]),
         "SGD: the gradient of weight: expected an array on cuda:0, got one on cpu"),
    ],
)  # fmt: skip
def test_arrays_in_two_places(mix, words, mixed):
    with pytest.raises(DeviceError, match=words):
        mix(*mixed)()


def test_labels_may_be_anywhere(stand_in):
    logits, labels, loss = np.eye(3, dtype=np.float32), np.array([0, 2, 1]), SoftmaxCrossEntropy()
    expected = loss.forward(logits, labels)[0]
    for given in labels, stand_in.asarray(labels), labels.tolist():
        value, cache = loss.forward(stand_in.asarray(logits), given)
        assert float(value) == expected and device_of(loss.backward(cache)) == "cuda:0"


# --- memory -------------------------------------------------------------------------------------------------------


def test_too_little_memory_for_a_batch(stand_in, tmp_path, monkeypatch):
    config = replace(CONFIG, data="synthetic:28x28x1:3:300", batch=128)
    forward = Linear.forward

    def costly(self, *args, **kwargs):  # once the first checkpoint is written
        fake_cupy.statistics.largest = 10 << 10
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(Linear, "forward", costly)
    message = (
        r"^device 'cuda:1': out of memory: \d\.\d MiB more were asked for, with 40.00 GiB taken and 20.00 GiB free of "
        r"80.00 GiB; a new run with --batch 64 should fit; the last good checkpoint is .*last.safetensors$"
    )
    with pytest.raises(DeviceError, match=message):
        train(config, tmp_path)
    monkeypatch.setattr(Linear, "forward", forward)
    fake_cupy.statistics.largest = fake_cupy.MEMORY
    assert resume(tmp_path).finished


def test_out_of_memory_elsewhere(stand_in):
    fake_cupy.statistics.largest = 100
    with pytest.raises(DeviceMemoryError, match="device 'cuda:0': out of memory") as caught, using("cuda"):
        Linear(30, 30).to("cuda")
    assert (caught.value.asked, caught.value.total) == (3600, fake_cupy.MEMORY)
    assert isinstance(caught.value, MemoryError) and isinstance(caught.value, DeviceError)


def test_kernels_are_compiled_ahead(gpu):
    launched = fake_cupy.statistics.launched
    warm_up(device="cuda:1")
    assert (fake_cupy.statistics.launched > launched) == (gpu.computes_by == "cuda")


def test_masks_are_those_of_the_cpu(gpu):
    x = np.ones((3, 5, 7), np.float32)
    y, _ = Dropout(0.4).forward(x, train=True, key=Key(3))
    there, _ = Dropout(0.4).forward(gpu.asarray(x), train=True, key=Key(3))
    np.testing.assert_array_equal(there.get(), y)


def test_kernels_of_the_cpu_refuse_arrays_of_a_gpu(stand_in):
    x = stand_in.asarray(np.ones((1, 2, 2, 3), np.float32))
    with (
        settings(kernels="numba"),
        pytest.raises(
            ArgumentError, match="relu: kernels='numba' computes on the cpu, got arrays on cuda:0; use kernels='auto'"
        ),
    ):
        ReLU()(x)
