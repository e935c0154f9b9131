"""Measurements from start to end: processes, agreement, turns, and the figures as JSON holds them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from minidl.accelerate import num_threads
from minidl.bench.agreement import Check, agree
from minidl.bench.contenders import CPU, OP_PEERS, OURS, PACKAGES, contenders
from minidl.bench.machine import GB, MB, available_memory, machine, versions
from minidl.bench.task import (
    GEMM_BOUND,
    MODES,
    PRECISIONS,
    Cost,
    LimitTask,
    NetTask,
    OpTask,
    costs,
    describe,
    op_tasks,
    site,
)
from minidl.bench.timing import Times, ratios, take_turns
from minidl.bench.work import tolerance
from minidl.bench.worker import Worker, ask
from minidl.devices import parse_device
from minidl.errors import ArgumentError, MinidlError, UnknownNameError, expect_integer
from minidl.summary import Summary, summarize

REPEATS = 7
OP_TURN = 0.05  # seconds: there are many ops
ON_GPU = {"size": 8192, "numbers": 1 << 28}  # a product and a copy large enough to keep a GPU busy
Figures = dict[str, Any]
Listener = Callable[[str], None]


class OutOfMemoryError(MinidlError, MemoryError):
    """There is too little memory for what was asked."""


def silent(news: str) -> None:
    """Tell nobody."""


def measure_net(
    model: str,
    mode: str = "train",
    batch: int = 64,
    peers: Sequence[str] = (),
    threads: int | None = None,
    repeats: int = REPEATS,
    device: str = "cpu",
    precision: str = "float32",
    tell: Listener = silent,
) -> Figures:
    """Images per second of a model beside those of its peers, and the memory that each takes.

    mode: "train", a whole step: forward, loss, backward, SGD with momentum; or "infer".
    peers: "torch", "torch-compile", "onnxruntime", "reference". Of PyTorch's two layouts the faster counts. And
        "minidl-cpu", which is minidl on the CPU in float32.
    threads: for each side; those that minidl would use anyhow unless given.
    repeats: turns that are timed, after the warm-up.
    device: "cpu", "cuda", "cuda:N"; or "cpu,cuda", which is "cuda" with the peer "minidl-cpu".
    precision: "float32"; "tf32" on a GPU; "bf16", "fp16".
    tell: hears what happens next.
    Raises: ArgumentError, UnknownNameError for what cannot be measured; DeviceError for a device that cannot be used;
        OutOfMemoryError where memory is too small for the batch; DisagreementError where results differ; WorkerError
        where a process fails.
    """
    if mode not in MODES:
        raise UnknownNameError("mode", mode, MODES)
    if mode == "train" and "onnxruntime" in peers:
        raise ArgumentError("onnxruntime: it only infers; measure it with --mode infer")
    task = NetTask(model, mode, expect_integer("bench", "batch", batch))
    threads, repeats = _checked(threads, repeats)
    device, peers = _placed(device, precision, peers)
    names = contenders(peers)
    require_memory(task, sum(_on_cpu(name, device) for name in names))
    with processes(names, threads, device, precision) as workers:

        def begin(worker: Worker) -> float:
            tell(f"{worker.contender}: making {model} ready")
            return worker.begin(task)[1]

        together = device != "cpu"  # the host has nothing to do then that could be disturbed
        setup = ask(begin, workers, together)
        tell("comparing results")
        checks = agree(task, workers[0], workers[1:], precision, together)
        racing = [worker for worker in workers if not checks[worker.contender].refused]
        tell(f"{repeats} turns of {', '.join(worker.contender for worker in racing)}")
        times = take_turns(racing, mode, repeats)
        memory = {worker.contender: _memory(worker) for worker in racing}
        copies = _transfers(task, [worker for worker in racing if not _on_cpu(worker.contender, device)], repeats)
        gpu = workers[0].gpu()
    figures = {"model": model, "mode": mode, "batch": batch, "threads": threads, "device": device, "repeats": repeats}
    figures["precision"] = precision
    sides = {
        name: _side(name, times, batch, setup[name], checks[name]) | memory[name] | copies.get(name, NO_TRANSFER)
        for name in times
    }
    ours = sides.pop(OURS)
    result = {**figures, **{key: value for key, value in ours.items() if key not in ("name", "variant")}}
    if sides:
        best = min(sides.values(), key=lambda side: side["median_s"])
        result |= {f"peer_{key}": value for key, value in best.items() if not key.startswith("ratio")}
        result |= {key: value for key, value in best.items() if key.startswith("ratio")}
        result["peer"] = result.pop("peer_name")
        result["peers"] = list(sides.values())
        result["refused"] = _refused(checks)
        compared = ("logits", "gradient of a parameter")
        result["tolerance"] = {what: tolerance(task, what, precision) for what in compared}
    return {**result, **_circumstances(peers, gpu)}


def measure_ops(
    ops: Sequence[str],
    model: str = "alexnet",
    batch: int = 64,
    peers: Sequence[str] = (),
    threads: int | None = None,
    repeats: int = REPEATS,
    device: str = "cpu",
    precision: str = "float32",
    tell: Listener = silent,
) -> Figures:
    """Each op alone, at the shapes that it has in a model: forward, backward, both; beside its peers, and beside what
    the machine can do.

    ops: names, or "all". For the rest see `measure_net`; the peers are "torch", "reference" and "minidl-cpu".
    Raises: what `measure_net` raises.
    """
    expect_integer("bench", "batch", batch)
    threads, repeats = _checked(threads, repeats)
    device, peers = _placed(device, precision, peers)
    for peer in peers:
        if peer in PACKAGES and peer not in OP_PEERS:
            raise ArgumentError(f"{peer}: it is measured with whole nets only; for an op name one of {OP_PEERS}")
    names = contenders(peers)
    tasks = list(dict.fromkeys(task for op in ops for task in op_tasks(op, model, batch)))
    if not tasks:
        raise ArgumentError(f"op: {model} has no {' and no '.join(ops)}")
    for task in tasks:
        require_memory(task, sum(_on_cpu(name, device) for name in names))
    with processes(names, threads, device, precision) as workers:
        size = {} if device == "cpu" else ON_GPU
        able = [worker for worker in workers if worker.contender in (OURS, "torch contiguous")]
        limits = _limits(LimitTask(**size), able, repeats, tell)
        rows = []
        for task in tasks:
            tell(f"{task.op} at {task.layer}")
            rows.append(_op(task, workers, repeats, limits, precision))
        gpu = workers[0].gpu()
    figures = {"model": model, "batch": batch, "threads": threads, "device": device, "repeats": repeats}
    found = {"precision": precision, "limits": limits, "ops": rows, "peers": list(peers)}
    return {**figures, **found, **_circumstances(peers, gpu)}


def _placed(device: str, precision: str, peers: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The device that is measured, and the peers; "cpu,cuda" adds minidl on the CPU to these."""
    if precision not in PRECISIONS:
        raise UnknownNameError("precision", precision, PRECISIONS)
    names = device.split(",") if isinstance(device, str) else [device]
    if len(names) == 2 and "cpu" in names:
        names.remove("cpu")
        peers = [CPU, *peers]
        device = names[0]
    device = parse_device(device)
    if device == "cpu" and CPU in peers:
        raise ArgumentError(f"peer {CPU!r} is what is measured on device 'cpu'; name a GPU")
    if device == "cpu" and precision == "tf32":
        raise ArgumentError("precision: tf32 is a mode of a GPU's matrix products; measure float32 on the CPU")
    if "onnxruntime" in peers and (device, precision) != ("cpu", "float32"):
        raise ArgumentError("onnxruntime: it is measured on the CPU and in float32 only")
    return device, peers


def _on_cpu(name: str, device: str) -> bool:
    """Whether a contender computes on the CPU."""
    return device == "cpu" or name == CPU


def _checked(threads: int | None, repeats: int) -> tuple[int, int]:
    count = num_threads() if threads is None else expect_integer("bench", "threads", threads)
    return count, expect_integer("bench", "repeats", repeats)


def _circumstances(peers: Sequence[str], gpu: Figures) -> Figures:
    packages = sorted({package for peer in peers for package in PACKAGES[peer]})
    return {"machine": machine() | ({"gpu": gpu} if gpu else {}), "versions": versions(packages)}


@contextmanager
def processes(names: Sequence[str], threads: int, device: str, precision: str) -> Iterator[list[Worker]]:
    """A process for each contender, for as long as the block lasts."""
    with ExitStack() as stack:
        yield [stack.enter_context(Worker(name, threads, device, precision)) for name in names]


def _memory(worker: Worker) -> Figures:
    device = worker.device_peak()
    return {
        "peak_rss_mb": round(worker.peak() / MB, 1),
        "peak_device_mb": None if device is None else round(device / MB, 1),
    }


NO_TRANSFER: Figures = {"with_transfer_s": None, "with_transfer_images_per_s": None, "transfer_gb_per_s": None}


def _transfers(task: NetTask, workers: list[Worker], repeats: int) -> dict[str, Figures]:
    """What copying the batch to the GPU takes, by itself and before each pass."""
    if not workers:
        return {}
    size = 4 * task.batch * math.prod(describe(task.model)[1])
    copies = take_turns(workers, "transfer", repeats, OP_TURN)
    passes = take_turns(workers, f"{task.mode} with transfer", repeats)
    return {
        name: {
            "with_transfer_s": passes[name].median,
            "with_transfer_images_per_s": task.batch / passes[name].median,
            "transfer_gb_per_s": size / copies[name].median / GB,
        }
        for name in copies
    }


def _side(name: str, times: dict[str, Times], batch: int, setup: float, check: Check) -> Figures:
    """The figures of one contender. Its warm-up is its pass for the comparison and its first call; what they took
    beyond two usual calls went into compilation.
    """
    peer, _, variant = name.partition(" ")
    own = times[name]
    warm_up = check.seconds + own.first
    figures = {
        "name": peer,
        "variant": variant or None,
        "images_per_s": batch / own.median,
        **own.to_dict(),
        "setup_s": setup,
        "warm_up_s": warm_up,
        "compile_s": max(0.0, warm_up - 2 * own.median),
    }
    if name == OURS:
        return figures
    return {**figures, **ratios(times[OURS], own), "largest_error": check.largest_error}


def _refused(checks: dict[str, Check]) -> dict[str, str]:
    """Those that were not timed, as their results are wrong."""
    return {name: check.refused for name, check in checks.items() if check.refused}


# --- single ops -----------------------------------------------------------------------------------------------------


def _limits(task: LimitTask, workers: list[Worker], repeats: int, tell: Listener) -> Figures:
    """The fastest matrix product and the fastest copy that any library here reaches, in their medians."""
    tell("the machine's limits: a matrix product, a copy")
    for worker in workers:
        worker.begin(task)
    best = {
        run: min((times.median, name) for name, times in take_turns(workers, run, repeats, OP_TURN).items())
        for run in ("sgemm", "copy")
    }
    for worker in workers:
        worker.begin(LimitTask(size=1, numbers=1))  # lets go of the arrays
    (product, by), (copy, copied_by) = best["sgemm"], best["copy"]
    return {
        "sgemm_gflop_per_s": 2 * task.size**3 / product / 1e9,
        "sgemm_by": by,
        "copy_gb_per_s": 2 * 4 * task.numbers / copy / 1e9,
        "copy_by": copied_by,
    }


def _op(task: OpTask, workers: list[Worker], repeats: int, limits: Figures, precision: str) -> Figures:
    """All runs of one op."""
    for worker in workers:
        worker.begin(task)
    checks = agree(task, workers[0], workers[1:], precision)
    workers = [worker for worker in workers if not checks[worker.contender].refused]
    errors = {worker.contender: checks[worker.contender].largest_error for worker in workers[1:]}
    known = costs(task, precision)
    runs = {
        run: _run(task, run, cost, take_turns(workers, run, repeats, OP_TURN), limits) for run, cost in known.items()
    }
    described: Figures = {"description": "", "input_shape": None}
    if task.layer not in ("loss", "update"):
        place = site(task)
        described = {"description": str(place.layer), "input_shape": [task.batch, *place.shape]}
    named = {"op": task.op, "layer": task.layer, "count": task.count, **described}
    return {**named, "largest_errors": errors, "refused": _refused(checks), "runs": runs}


def _run(task: OpTask, run: str, cost: Cost, times: dict[str, Times], limits: Figures) -> Figures:
    """One run: the times of all, the faster of PyTorch's layouts, and the share of what the machine can do."""
    ours = times[OURS]
    gflop, gb = cost.flop / ours.median / 1e9, cost.bytes / ours.median / 1e9
    share = gflop / limits["sgemm_gflop_per_s"] if task.op in GEMM_BOUND else gb / limits["copy_gb_per_s"]
    peers: Figures = {}
    for name, theirs in sorted(times.items(), key=lambda item: item[1].median):
        peer, _, variant = name.partition(" ")
        if name != OURS and peer not in peers:
            peers[peer] = {"variant": variant or None, **theirs.to_dict(), **ratios(ours, theirs)}
    return {
        **ours.to_dict(),
        "flop": cost.flop,
        "bytes": cost.bytes,
        "gflop_per_s": gflop,
        "gb_per_s": gb,
        "limit": "sgemm" if task.op in GEMM_BOUND else "copy",
        "share_of_limit": share,
        "peers": peers,
    }


# --- memory ---------------------------------------------------------------------------------------------------------


def require_memory(task: NetTask | OpTask, sides: int) -> None:
    """Check that a task fits into the host's memory as often as sides compute on the CPU, before any of it is
    allocated. A GPU tells by itself what it has no room for, and does not slow down before.

    Raises: OutOfMemoryError saying how much is needed, and the largest batch that fits.
    """
    available = available_memory()
    if available is None or not sides:
        return
    fixed, each = _needs(task)
    needed = sides * (fixed + each * task.batch)
    if needed > available:
        most = int((available / sides - fixed) / each)
        cure = f"try a batch of {most}" if most >= 1 else "try a smaller model"
        fewer = " or fewer peers" if sides > 1 else ""
        raise OutOfMemoryError(
            f"bench: {task.model} at batch {task.batch} needs about {needed / GB:,.1f} GB in {sides} "
            f"process{'es' * (sides > 1)}, and {available / GB:,.1f} GB are free; {cure}{fewer}"
        )


PROCESS = 300e6  # bytes that Python and the libraries take


def _needs(task: NetTask | OpTask) -> tuple[float, float]:
    """Bytes that a side needs at least, and how many more for each image: a rough estimate, rather too high."""
    net, shape = describe(task.model)
    if isinstance(task, OpTask) and task.layer not in ("loss", "update"):
        place = site(task)
        summary = summarize(place.layer, place.shape)
        images = math.prod(place.shape) * 4
        return PROCESS + 3 * 4 * summary.parameters, 3.0 * (images + summary.activation_bytes)
    summary = summarize(net, shape)
    if isinstance(task, OpTask):
        return PROCESS + 4 * 4 * summary.parameters, 4.0 * math.prod(summary.output_shape)
    training = task.mode == "train"
    weights = (4 if training else 2) * 4 * summary.parameters  # value, gradient, velocity, and a copy on the way
    images = 4 * math.prod(shape)
    return PROCESS + weights, images + (summary.activation_bytes if training else 2 * _widest(summary))


def _widest(summary: Summary) -> int:
    return max(row.activation_bytes for row in summary.rows)
