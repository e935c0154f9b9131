"""Benchmarks compare results before they time anything, and say all that a reader needs to judge the figures."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import subprocess
import sys
from importlib.util import find_spec
from unittest.mock import Mock

import numpy as np
import pytest

from minidl import bench, cli
from minidl.bench import measure, measure_net, measure_ops
from minidl.bench.agreement import DisagreementError, agree, relative_error
from minidl.bench.contenders import make
from minidl.bench.ours import Ours
from minidl.bench.report import describe, write_report
from minidl.bench.task import LimitTask, NetTask, OpTask, build, costs, images_and_labels, op_tasks
from minidl.bench.timing import quartiles
from minidl.bench.work import tolerance
from minidl.bench.worker import Worker, WorkerError, serve
from minidl.errors import ArgumentError, UnknownNameError

with_torch = pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed, so it is no peer")
with_onnxruntime = pytest.mark.skipif(
    find_spec("onnxruntime") is None, reason="ONNX Runtime is not installed, so it is no peer"
)
NETS = ["lenet5", "alexnet_mini"]


# --- measurements -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def net():
    return measure_net("lenet5", batch=2, peers=["reference"], threads=1, repeats=2)


@pytest.fixture(scope="module")
def ops():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "LimitTask", lambda **sizes: LimitTask(**{"size": 64, "numbers": 1024} | sizes))
        return measure_ops(["linear", "sgd"], model="lenet5", batch=2, peers=["reference"], threads=1, repeats=2)


def test_a_net_beside_the_reference_bodies(net):
    for name in (
        "images_per_s", "peer_images_per_s", "ratio", "ratio_minimum", "peak_rss_mb", "peer_peak_rss_mb", "median_s",
        "minimum_s", "warm_up_s", "setup_s", "first_call_s",
    ):  # fmt: skip
        assert math.isfinite(net[name]), name
        assert net[name] > 0, name
    assert net["ratio_minimum"] <= net["ratio_quartiles"][0] <= net["ratio"] <= net["ratio_maximum"]
    assert net["minimum_s"] <= net["quartiles_s"][0] <= net["median_s"] <= net["quartiles_s"][1]
    asked = {"model": "lenet5", "mode": "train", "batch": 2, "threads": 1, "repeats": 2, "device": "cpu"}
    asked |= {"precision": "float32", "launch_share": None, "peak_device_mb": None, "transfer_gb_per_s": None}
    assert {name: net[name] for name in asked} == asked
    assert (net["peer"], net["peer_variant"], net["refused"]) == ("reference", None, {})
    assert net["machine"]["cores"] > 0
    assert {"python", "minidl", "numpy"} <= set(net["versions"])
    json.dumps(net, allow_nan=False)


@with_torch
def test_the_faster_of_pytorch_s_layouts_counts():
    found = measure_net("lenet5", mode="infer", batch=2, peers=["torch"], threads=1, repeats=1)
    assert {side["variant"] for side in found["peers"]} == {"contiguous", "channels_last"}
    assert found["peer_images_per_s"] == max(side["images_per_s"] for side in found["peers"])
    assert found["peer_variant"] in ("contiguous", "channels_last")


def test_ops_at_the_shapes_of_a_model(ops):
    assert [op["layer"] for op in ops["ops"]] == ["fc3", "fc4", "fc5", "update"]
    assert ops["ops"][0]["input_shape"] == [2, 400]
    assert set(ops["ops"][0]["runs"]) == {"forward", "backward", "both", "input gradient", "weight gradient"}
    assert set(ops["ops"][3]["runs"]) == {"update"}
    for op in ops["ops"]:
        for run in op["runs"].values():
            assert run["share_of_limit"] > 0
            assert run["peers"]["reference"]["ratio"] > 0
    assert ops["limits"]["sgemm_gflop_per_s"] > 0
    assert ops["limits"]["copy_gb_per_s"] > 0
    json.dumps(ops, allow_nan=False)


def test_the_report_is_whole(net, ops, tmp_path):
    doubled = {**net, "threads": 2}
    write_report(tmp_path / "report", [net, doubled], [ops], ["minidl bench <…>"])
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 4  # rates, scaling, layers, roofline
    assert "minidl bench &lt;…&gt;" in page
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    for name in "nets", "nets_by_threads", "ops0_layers", "ops0_roofline":
        assert f"({name}.png)" in text
        assert (tmp_path / "report" / f"{name}.png").exists()
    results = json.loads((tmp_path / "report" / "results.json").read_text(encoding="utf-8"))
    assert (len(results["nets"]), len(results["ops"])) == (2, 1)


def test_the_terminal_shows_a_table_that_fits(net, ops):
    from rich.console import Console

    text = io.StringIO()
    console = Console(width=80, file=text)
    for part in describe([net], [ops]):
        console.print(part)
    lines = text.getvalue().splitlines()
    assert "lenet5, train, batch 2, 1 thread" in lines
    assert any("weight gradient" in line for line in lines)
    assert "…" not in text.getvalue().replace(" … ", " ")  # no cell is cut short
    assert max(map(len, lines)) <= 80


# --- agreement ----------------------------------------------------------------------------------------------------


class Stub:
    """A contender whose results can be chosen."""

    def __init__(self, contender, result):
        self.contender, self._result = contender, result

    def check(self):
        return ["logits"], 0.1

    def result(self, name):
        return self._result


RIGHT = np.ones((2, 3))


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        (np.full((2, 3), 1.01), "beside torch, logits is 9.9e-03 from ours, allowed 1e-04"),
        (np.full((2, 3), np.nan), "beside torch, logits is inf from ours"),
        (np.ones((3, 2)), "beside torch, logits is inf from ours"),
    ],
)
def test_a_peer_that_computes_something_else_is_not_timed(theirs, message):
    task = NetTask("lenet5", "infer", 2)
    with pytest.raises(DisagreementError, match=f"lenet5, infer, batch 2: {message}"):
        agree(task, Stub("minidl", RIGHT), [Stub("torch", theirs), Stub("onnxruntime", RIGHT)])
    layouts = [Stub("torch contiguous", theirs), Stub("torch channels_last", RIGHT)]
    checks = agree(task, Stub("minidl", RIGHT), layouts)
    assert checks["torch contiguous"].refused
    assert not checks["torch channels_last"].refused


def test_results_that_are_not_finite_agree_with_nothing():
    with pytest.raises(DisagreementError, match="not finite"):
        agree(NetTask("lenet5", "infer", 2), Stub("minidl", np.array([np.nan])), [])


def test_a_wrong_kernel_is_found_out(monkeypatch):
    """Every weight of the engine's conv1 is moved in its process: no figure may come of it."""
    from minidl.bench import ours

    honest = ours.build

    def wrong(model):
        net, shape = honest(model)
        net.parameters()["conv1.weight"].value *= 1.001
        return net, shape

    right = Ours(1).begin(NetTask("lenet5", "train", 2)).results()
    monkeypatch.setattr(ours, "build", wrong)
    task = NetTask("lenet5", "train", 2)
    moved = Ours(1).begin(task).results()
    assert relative_error(moved["logits"], right["logits"]) > tolerance(task, "logits")


def test_relative_errors():
    assert relative_error(np.array([3.0, 4.5]), np.array([3.0, 4.0])) == pytest.approx(0.1)
    assert relative_error(np.zeros(2), np.zeros(2)) == 0
    assert relative_error(np.ones(2), np.zeros(2)) == math.inf


def assert_agree(task, ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        error = relative_error(ours[name], theirs[name])
        assert error <= tolerance(task, name), f"{task}: {name}: {error:.1e}"


@with_torch
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("model", NETS)
def test_the_twin_trains_as_we_do(model, layout):
    task = NetTask(model, "train", 2)
    ours, twin = Ours(1).begin(task), make(f"torch {layout}", 1).begin(task)
    found = ours.results()
    assert {f"gradient of {name}" for name in build(model)[0].parameters()} | {"logits", "loss"} == set(found)
    assert_agree(task, found, twin.results())
    for work in ours, twin:
        before = work.results()["loss"]
        for _ in range(3):
            assert work.turn("train", 1).seconds > 0
        assert work.results()["loss"] != before


@with_torch
@pytest.mark.parametrize("task", op_tasks("all", "alexnet_mini", 2), ids=lambda task: f"{task.op}-{task.layer}")
def test_every_op_of_the_twin_is_ours(task):
    ours, twin = Ours(1).begin(task), make("torch contiguous", 1).begin(task)
    assert list(ours.runs) == list(twin.runs) == list(costs(task))
    assert_agree(task, ours.results(), twin.results())
    for run in ours.runs:
        assert min(ours.turn(run, 1).seconds, twin.turn(run, 1).seconds) > 0


@with_onnxruntime
@pytest.mark.parametrize("model", NETS)
def test_the_exported_graph_infers_as_we_do(model):
    task = NetTask(model, "infer", 2)
    assert_agree(task, Ours(1).begin(task).results(), make("onnxruntime", 1).begin(task).results())


def test_the_exported_graph_is_valid_onnx():
    onnx = pytest.importorskip("onnx", reason="ONNX is not installed, so no graph is exported")
    from minidl.bench.onnx_runtime import to_onnx

    for model in NETS:
        onnx.checker.check_model(to_onnx(*build(model)), full_check=True)


# --- what is measured ---------------------------------------------------------------------------------------------


def test_layers_that_are_alike_are_measured_once():
    linear = {task.layer: task.count for task in op_tasks("relu", "alexnet", 2)}
    assert linear == {"relu1": 1, "relu2": 1, "relu3": 2, "relu5": 1, "relu6": 2}
    convolutions = op_tasks("conv2d", "vgg16", 2)
    assert [(task.layer, task.count) for task in convolutions][-2:] == [("conv4_2", 2), ("conv5_1", 3)]


def test_costs_are_those_of_the_equations():
    conv1 = costs(OpTask("alexnet", "conv2d", "conv1", 64))
    flop = 2 * 64 * 55 * 55 * 96 * 11 * 11 * 3
    assert conv1["forward"].flop == flop
    assert conv1["both"].flop == 2 * flop  # nobody needs the gradient of the images
    assert costs(OpTask("alexnet", "conv2d", "conv3", 64))["both"].flop == 3 * 2 * 64 * 13 * 13 * 384 * 9 * 256
    relu = costs(OpTask("alexnet", "relu", "relu1", 64))
    assert relu["forward"].bytes == 2 * 4 * 64 * 55 * 55 * 96
    assert relu["backward"].bytes == 3 * 4 * 64 * 55 * 55 * 96
    assert costs(OpTask("alexnet", "sgd", "update", 64))["update"].bytes == 5 * 4 * 60_965_224


def test_every_process_has_the_same_weights_and_images():
    (first, shape), (second, _) = build("lenet5"), build("lenet5")
    for a, b in zip(first.parameters().values(), second.parameters().values(), strict=True):
        assert np.array_equal(a.value, b.value)
        assert a.value.any()  # biases too
    assert np.array_equal(images_and_labels(first, shape, 2)[0], images_and_labels(second, shape, 2)[0])


def test_quartiles():
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == [2.0, 4.0]
    assert quartiles([3.0]) == [3.0, 3.0]


# --- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "alexnte"}, UnknownNameError, "did you mean 'alexnet'"),
        ({"model": "alexnet(lnr=False)"}, UnknownNameError, "did you mean 'lrn'"),
        ({"mode": "training"}, UnknownNameError, "unknown mode 'training'"),
        ({"peers": ["pytorch"]}, UnknownNameError, "did you mean 'torch'"),
        ({"peers": ["reference", "reference"]}, ArgumentError, "each once"),
        ({"peers": ["onnxruntime"]}, ArgumentError, "only infers"),
        ({"batch": 0}, ArgumentError, "batch: expected a positive integer, got 0"),
        ({"threads": 0}, ArgumentError, "threads: expected a positive integer, got 0"),
        ({"repeats": -1}, ArgumentError, "repeats: expected a positive integer"),
        ({"device": "gpu"}, ArgumentError, "device: expected"),
        ({"device": "cpu,gpu"}, ArgumentError, "device: expected 'cpu', 'cuda' or 'cuda:N', got 'gpu'"),
        ({"device": "cpu,cpu"}, ArgumentError, "peer 'minidl-cpu' is what is measured"),
        ({"device": 0}, ArgumentError, "device: expected"),
        ({"precision": "float64"}, UnknownNameError, "unknown precision 'float64'"),
        ({"precision": "tf32"}, ArgumentError, "tf32 is a mode of a GPU"),
        ({"precision": "bf16", "mode": "infer", "peers": ["onnxruntime"]}, ArgumentError, "in float32 only"),
    ],
)
def test_a_careless_question_is_refused_before_any_work(options, error, message, monkeypatch):
    monkeypatch.setattr(measure, "Worker", None)
    with pytest.raises(error, match=message):
        measure_net(**{"model": "lenet5", **options})


def test_a_careless_question_about_ops_is_refused():
    with pytest.raises(UnknownNameError, match="unknown op 'conv'"):
        measure_ops(["conv"], model="lenet5")
    with pytest.raises(ArgumentError, match="lenet5 has no dropout"):
        measure_ops(["dropout"], model="lenet5")
    with pytest.raises(ArgumentError, match="torch-compile: it is measured with whole nets only"):
        measure_ops(["all"], model="lenet5", peers=["torch-compile"])


def test_a_peer_that_is_not_installed_says_what_to_install(monkeypatch):
    monkeypatch.setattr("minidl.bench.contenders.find_spec", lambda package: None)
    with pytest.raises(ArgumentError, match="'onnxruntime' is not installed here: pip install onnxruntime onnx"):
        measure_net("lenet5", mode="infer", peers=["onnxruntime"])


def test_too_large_a_batch_is_refused_before_memory_is_taken(monkeypatch):
    monkeypatch.setattr(measure, "available_memory", lambda: 10e9)
    monkeypatch.setattr(measure, "Worker", None)
    message = r"alexnet at batch 100000 needs about [\d,.]+ GB in 2 processes, and 10.0 GB are free; try a batch of \d+"
    with pytest.raises(bench.measure.OutOfMemoryError, match=message):
        measure_net("alexnet", batch=100_000, peers=["reference"])
    with pytest.raises(bench.measure.OutOfMemoryError, match="try a batch of"):
        measure_ops(["conv2d"], model="alexnet", batch=100_000)


def test_a_process_that_fails_is_named():
    with Worker("reference", 1) as worker:
        with pytest.raises(WorkerError, match=r"reference: unknown model 'lenet6': did you mean 'lenet5'"):
            worker.begin(NetTask("lenet6", "infer", 1))
        worker.begin(NetTask("lenet5", "infer", 1))  # and lives on
        worker._process.kill()
        with pytest.raises(WorkerError, match="reference: its process ended in 'turn'"):
            worker.turn("infer")


def test_a_process_whose_parent_is_gone_ends(monkeypatch):
    monkeypatch.setattr("minidl.bench.worker._write", Mock(side_effect=BrokenPipeError))
    serve("reference", 1, "cpu", "float32", io.BytesIO(pickle.dumps(("peak", ()))), io.BytesIO())


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--batch", "1,x"], 2, "batch: expected positive integers with commas between"),
        (["--batch", "0"], 2, "batch: expected positive integers"),
        (["--threads", "0"], 2, "threads: expected positive integers"),
        (["--op", "conv"], 2, "unknown op 'conv'"),
        (["--report", __file__], 2, "is a file"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_line(words, code, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["minidl", "bench", "--model", "lenet5", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_the_command_prints_one_object(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "minidl", "bench", "--model", "lenet5", "--batch", "1,2", "--repeats", "1", "--json"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "MINIDL_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["measurements"]
    assert [each["batch"] for each in found] == [1, 2]
    assert all(each["images_per_s"] > 0 and each["threads"] == 1 for each in found)
