"""What benchmarks do on a GPU, as far as it can be seen without one: a GPU's clock stands beside arrays of the CPU."""

from __future__ import annotations

import io
import json
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

from minidl.bench import contenders, machine, measure, measure_net, measure_ops, ours, plots, timing
from minidl.bench.agreement import relative_error
from minidl.bench.clock import CuPyClock, TorchClock, Turn
from minidl.bench.contenders import CPU, make
from minidl.bench.ours import Ours
from minidl.bench.report import describe, speedups, write_report
from minidl.bench.task import LimitTask, NetTask, OpTask, costs, op_tasks
from minidl.bench.timing import Times
from minidl.bench.work import InTurn, Work, tolerance
from minidl.bench.worker import Server

with_torch = pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed, so it is no peer")


class Event:
    """Happens when it is recorded, as on a GPU without a queue."""

    def __init__(self, log, **options):
        self.log, self.options = log, options

    def record(self):
        self.log.append("event")

    def synchronize(self):
        self.log.append("wait")

    def elapsed_time(self, end):
        return 30.0


def fake_cupy(cache=60_000_000):
    log = []
    pool = SimpleNamespace(total_bytes=lambda: 5_000_000, free_all_blocks=lambda: log.append("free"))
    device = SimpleNamespace(
        id=1, pci_bus_id="0000:01:00.0", attributes={"L2CacheSize": cache},
        use=lambda: log.append("use"), synchronize=lambda: log.append("synchronize"),
    )  # fmt: skip
    properties = {"name": b"H200", "totalGlobalMem": 141e9, "multiProcessorCount": 132, "major": 9, "minor": 0}
    runtime = SimpleNamespace(
        getDeviceProperties=lambda index: properties, runtimeGetVersion=lambda: 13000, driverGetVersion=lambda: 12080
    )
    cuda = SimpleNamespace(
        Device=lambda index: device, Event=lambda: Event(log), runtime=runtime,
        get_elapsed_time=lambda start, end: start.elapsed_time(end),
        alloc_pinned_memory=bytearray, get_current_stream=lambda: "stream",
    )  # fmt: skip
    return SimpleNamespace(cuda=cuda, get_default_memory_pool=lambda: pool, __version__="14.2.0", log=log)


def fake_torch(cache=60_000_000):
    log = []
    return SimpleNamespace(
        set_device=log.append, get_device_properties=lambda device: SimpleNamespace(L2_cache_size=cache),
        synchronize=lambda: log.append("synchronize"), Event=lambda **options: Event(log, **options),
        empty_cache=lambda: log.append("free"), reset_peak_memory_stats=lambda: log.append("reset"),
        max_memory_reserved=lambda: 5_000_000, log=log,
    )  # fmt: skip


CLOCKS = {"cupy": lambda: CuPyClock(fake_cupy(), "cuda:1"), "torch": lambda: TorchClock(fake_torch(), "cuda:1")}


@pytest.mark.parametrize("library", CLOCKS)
def test_a_gpu_is_timed_by_events_around_all_calls(library):
    clock = CLOCKS[library]()
    log = (clock.cupy if library == "cupy" else clock.cuda).log
    assert log == ["use" if library == "cupy" else "cuda:1"]
    log.clear()
    turn = clock.turn(lambda: log.append("call"), 3)
    assert log == ["synchronize", "event", "call", "call", "call", "event", "wait"]
    assert turn.seconds == pytest.approx(0.01)
    assert 0 < turn.launch < 3 * turn.wall
    clock.reset_peak()
    assert clock.peak() == 5_000_000
    assert clock.cache == 60_000_000


def test_events_of_pytorch_are_told_to_keep_time():
    assert CLOCKS["torch"]().event().options == {"enable_timing": True}


def test_launches_as_a_share_of_the_time_of_a_call():
    turns = tuple(Turn(seconds=0.01, wall=0.02, launch=launch) for launch in (0.001, 0.002, 0.01))
    known = Times(turns, 5, 0.3).to_dict()
    assert (known["launch_share"], known["wall_s"], known["median_s"]) == (0.1, 0.02, 0.01)
    assert Times((Turn(0.01, 0.01),), 5, 0.3).launch_share is None


def test_a_gpu_introduces_itself(monkeypatch):
    said = SimpleNamespace(stdout="580.95.05, 1980 MHz, 1980 MHz, 3201 MHz, 120 W, 700 W\n")
    asked = []
    monkeypatch.setattr(machine.subprocess, "run", lambda command, **options: asked.append(command) or said)
    known = CLOCKS["cupy"]().describe()
    assert known["name"] == "H200"
    assert known["compute_capability"] == "9.0"
    assert (known["cuda_runtime"], known["cuda_driver"], known["cupy"]) == ("13.0", "12.8", "14.2.0")
    assert known["driver_version"] == "580.95.05"
    assert known["clocks.sm"] == "1980 MHz"
    assert "--id=0000:01:00.0" in asked[0]


def test_without_nvidias_tool_a_gpu_says_less(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert machine.nvidia_smi("0") == {}


def test_a_batch_travels_through_pinned_memory():
    copied = []
    images = np.arange(6, dtype=np.float32).reshape(2, 3)
    there = SimpleNamespace(
        nbytes=24, dtype=images.dtype, size=6, shape=(2, 3), set=lambda host, stream: copied.append((host, stream))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ours, "to_host", lambda x: images)
        copy = ours.upload(fake_cupy(), there)
    copy()
    np.testing.assert_array_equal(copied[0][0], images)
    assert copied[0][1] == "stream"


def test_a_transfer_is_timed_alone_and_before_a_pass():
    done = []
    work = Work({"train": lambda: done.append("step")})
    work.add_transfer("train", lambda: done.append("copy"))
    for run in work.runs.values():
        run()
    assert list(work.runs) == ["train", "transfer", "train with transfer"]
    assert done == ["step", "copy", "copy", "step"]


def test_no_call_finds_its_arrays_in_the_cache():
    task = OpTask("alexnet_mini", "relu", "relu1", 2)  # forward moves 2·2·32·32·32 numbers of 4 bytes
    contender = Ours(1)
    assert not isinstance(contender.begin(task), InTurn)
    contender.clock = CuPyClock(fake_cupy(cache=1_200_000), "cuda:0")
    work = contender.begin(task)
    assert isinstance(work, InTurn)
    assert len(work.works) == 5
    assert len({each.x.ctypes.data for each in work.works}) == 5
    seen = []
    for each in work.works:
        each.layer.forward = lambda x, each=each, **options: seen.append(each) or (x, None)
    work.turn("forward", 7)
    assert seen == [*work.works, *work.works[:2]]
    assert set(work.results()) == {"y", "dx"}


def test_half_precision_moves_half_the_bytes():
    for task in op_tasks("all", "alexnet_mini", 2):
        share = 1 if task.op in ("sgd", "softmax_cross_entropy") else 2
        for run, cost in costs(task).items():
            assert cost.bytes == share * costs(task, "bf16")[run].bytes
            assert cost.flop == costs(task, "bf16")[run].flop


# --- whole measurements -------------------------------------------------------------------------------------------


class Here(Server):
    """A worker in this process, whose clock is a GPU's unless it is to be on the CPU."""

    def __init__(self, contender, threads, device, precision):
        self.name = contender
        super().__init__(contender, threads, device, precision)

    def __enter__(self):
        self.contender, self.worker = self.name, self.contender
        return self

    def __exit__(self, *exception):
        pass

    def begin(self, task):
        self.work = self.worker.begin(task)
        return list(self.work.runs), 0.1

    def turn(self, run, calls=1):
        return self.work.turn(run, calls)

    def reset_peak(self):
        self.worker.clock.reset_peak()
        return True

    def device_peak(self):
        return self.worker.clock.peak()

    def gpu(self):
        return self.worker.clock.describe()


@pytest.fixture(scope="module")
def gpu():
    """Stands for "cuda:0": minidl computes on the CPU, and a GPU's clock says that each turn took 30 ms."""

    def made(name, threads, device, precision):
        contender = make(name, threads, "cpu", precision)
        if device != "cpu" and name != CPU:
            contender.clock = CuPyClock(fake_cupy(cache=0), device)
        return contender

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contenders, "make", made)
        patch.setattr(measure, "Worker", Here)
        patch.setattr(measure, "parse_device", lambda device: "cuda:0" if device == "cuda" else device)
        patch.setattr(measure, "OP_TURN", 0.001)
        patch.setattr(timing, "PAUSE", 0.0)
        patch.setattr(measure, "ON_GPU", {"size": 64, "numbers": 1024})
        patch.setattr(ours, "upload", lambda cupy, images: lambda: None)
        yield


@pytest.fixture(scope="module")
def nets(gpu):
    return [measure_net("lenet5", batch=batch, device="cpu,cuda", threads=1, repeats=2) for batch in (2, 4)]


@pytest.fixture(scope="module")
def ops(gpu):
    options = {"model": "lenet5", "batch": 2, "device": "cpu,cuda", "precision": "bf16", "threads": 1, "repeats": 1}
    return measure_ops(["linear", "sgd"], **options)


def test_a_net_on_both(nets):
    for net, batch in zip(nets, (2, 4), strict=True):
        assert (net["device"], net["precision"], net["peer"]) == ("cuda:0", "float32", CPU)
        assert net["images_per_s"] == pytest.approx(batch * net["calls_per_turn"] / 0.03)
        assert net["with_transfer_images_per_s"] > 0
        assert net["transfer_gb_per_s"] > 0
        assert net["peak_device_mb"] == 5
        assert net["launch_share"] > 0
        cpu = net["peers"][0]
        assert (cpu["peak_device_mb"], cpu["launch_share"], cpu["transfer_gb_per_s"]) == (None, None, None)
        assert net["machine"]["gpu"]["name"] == "H200"
        json.dumps(net, allow_nan=False)


def test_ops_on_both(ops):
    assert (ops["device"], ops["precision"], ops["peers"]) == ("cuda:0", "bf16", [CPU])
    for op in ops["ops"]:
        for run in op["runs"].values():
            assert run["peers"][CPU]["ratio"] > 0
            assert run["launch_share"] > 0
            assert run["share_of_limit"] > 0
    json.dumps(ops, allow_nan=False)


def test_where_the_cpu_wins_comes_first(nets, ops):
    rows, lines = speedups(nets, [ops])
    factors = [float(row[4].rstrip("×")) for row in rows[1:]]
    assert factors == sorted(factors)
    assert len(rows) == 1 + 2 + len(ops["ops"])
    assert len(lines) == 1 + len(ops["ops"])
    assert lines[0].startswith("lenet5, train: the ")


def test_the_terminal_has_room_for_a_gpu(nets, ops):
    from rich.console import Console

    peers = [{**nets[0], **nets[0]["peers"][0], "name": "torch-compile", "variant": "channels_last"}]
    wide = {**nets[0], "peers": [*nets[0]["peers"], *peers], "images_per_s": 123_456.7, "launch_share": 0.99}
    text = io.StringIO()
    for part in describe([wide, *nets], [ops]):
        Console(width=80, file=text).print(part)
    lines = text.getvalue().splitlines()
    assert "lenet5, train, batch 2, cuda:0, float32" in lines
    assert "ops of lenet5, batch 2, cuda:0, bf16" in lines
    assert "CPU against GPU" in lines
    assert "…" not in text.getvalue().replace(" … ", " ")


def test_the_report_is_whole(nets, ops, tmp_path):
    write_report(tmp_path, nets, [ops])
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    for part in "## CPU against GPU", "H200", "nets_by_batch.png", "pinned memory", "copy GB/s":
        assert part in text


def test_a_net_measured_twice_is_one_point(nets):
    lines = plots._scaling({"twice": [*nets, {**nets[1], "images_per_s": 1e-3}]}, "batch").axes[0].lines
    assert [list(line.get_xdata()) for line in lines] == [[2, 4], [2, 4]]
    assert lines[0].get_ydata()[1] == nets[1]["images_per_s"]


# --- precisions ---------------------------------------------------------------------------------------------------


@with_torch
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize(("model", "mode"), [("alexnet_mini", "train"), ("lenet5", "train"), ("lenet5", "infer")])
def test_the_twin_rounds_as_we_do(model, mode, precision):
    task = NetTask(model, mode, 2)
    works = [make(name, 1, "cpu", precision).begin(task) for name in ("minidl", "torch contiguous")]
    found, theirs = (work.results() for work in works)
    exact = Ours(1).begin(task).results()
    assert found.keys() == theirs.keys()
    for name in found:
        assert found[name].dtype == theirs[name].dtype == np.float32
        assert relative_error(found[name], theirs[name]) <= tolerance(task, name, precision), name
        assert relative_error(found[name], exact[name]) <= tolerance(task, name, precision), name
    assert relative_error(found["logits"], exact["logits"]) > tolerance(task, "logits")
    for work in works:
        assert work.turn(mode, 1).seconds > 0


@with_torch
@pytest.mark.parametrize("op", ["conv2d", "linear", "max_pool2d", "relu", "dropout", "softmax_cross_entropy", "sgd"])
def test_ops_of_the_twin_round_as_ours(op):
    for task in op_tasks(op, "alexnet_mini", 2)[:2]:
        ours_, theirs = (make(name, 1, "cpu", "bf16").begin(task) for name in ("minidl", "torch contiguous"))
        assert list(ours_.runs) == list(theirs.runs)
        found, expected = ours_.results(), theirs.results()
        for name in found:
            assert relative_error(found[name], expected[name]) <= tolerance(task, name, "bf16"), f"{task}: {name}"


@with_torch
def test_limits_in_half_precision():
    for name in "minidl", "torch contiguous":
        work = make(name, 1, "cpu", "bf16").begin(LimitTask(size=16, numbers=64))
        assert work.turn("sgemm", 1).seconds > 0


def test_tolerances_follow_the_roundings():
    net, op = NetTask("lenet5", "train", 2), OpTask("lenet5", "linear", "fc3", 2)
    assert tolerance(net, "gradient of fc3.weight") == pytest.approx(2e-2)
    for task, what in (net, "logits"), (net, "gradient of fc3.weight"), (op, "y"):
        allowed = [tolerance(task, what, precision) for precision in ("float32", "tf32", "fp16", "bf16")]
        assert allowed == sorted(allowed)
        assert allowed[-1] < 0.4
