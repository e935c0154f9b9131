"""All benchmarks, one after another, into one report: python benchmarks/run.py [--quick | --gpu] [--seconds N] [FOLDER]

Each is a call of `minidl bench` that can be run by itself; the report shows them. A benchmark that fails is told, and
the others go on. `--quick` runs two small ones, to see that everything works; `--gpu` runs those of a GPU, the most
important ones first. With `--seconds`, what there is no more time for is left out. Peers that are not installed are
left out; and where torch.compile fails, which needs more than PyTorch itself, it is tried without.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from minidl.bench.report import net_title, write_report
from minidl.devices import gpu_problem

HERE = Path(__file__).parent
TRAINING = "--peer torch --peer torch-compile"
INFERENCE = f"--mode infer {TRAINING} --peer onnxruntime"
QUICK = (
    f"--model alexnet_mini --batch 8,32 {INFERENCE}",
    "--model lenet5 --batch 8 --op all --peer torch --peer reference",
)
ALL = (
    f"--model alexnet --batch 64,128 {TRAINING}",
    f"--model 'alexnet(lrn=False)' --batch 64 {TRAINING}",
    f"--model 'alexnet(groups=1, lrn=False)' --batch 64 {TRAINING}",
    f"--model vgg16 --batch 16 {TRAINING}",
    f"--model alexnet_mini --batch 128 {TRAINING}",
    f"--model alexnet --batch 1,64 {INFERENCE}",
    f"--model vgg16 --batch 1,8 {INFERENCE}",
    "--model alexnet --batch 64 --threads 1,2 --peer torch",
    "--model alexnet --batch 64 --op all --peer torch",
    "--model vgg16 --batch 4 --op all --peer torch",
)
COMPILED = "--peer torch --peer torch-compile"
GPU = (
    f"--device cuda --precision bf16 --model alexnet --batch 128 {COMPILED}",
    "--device cuda --precision float32 --model alexnet --batch 128 --peer torch",
    "--device cpu,cuda --model alexnet_mini --batch 1,8,64,512",
    "--device cuda --precision bf16 --model alexnet --batch 128 --op all --peer torch --repeats 5",
    "--device cuda --precision tf32 --model alexnet --batch 128,1024 --peer torch",
    "--device cuda --precision bf16 --model alexnet --batch 1024 --peer torch",
    f"--device cuda --precision bf16 --model 'alexnet(groups=1, lrn=False)' --batch 128 {COMPILED}",
    f"--device cuda --precision bf16 --model vgg16 --batch 64 {COMPILED}",
    "--device cuda --precision tf32 --model 'alexnet(groups=1, lrn=False)' --batch 128 --peer torch",
    "--device cuda --precision tf32 --model vgg16 --batch 64 --peer torch",
    "--device cpu,cuda --model alexnet_mini --batch 1,64 --op all --repeats 3",
    "--device cpu,cuda --model alexnet --batch 1,16,128 --repeats 3",
    "--device cuda --precision float32 --model alexnet --batch 128 --op all --peer torch --repeats 5",
    f"--device cuda --precision float32 --model alexnet --batch 1024 {COMPILED}",
    f"--device cuda --precision tf32 --model alexnet --batch 1024 {COMPILED}",
    f"--device cuda --precision bf16 --model alexnet --batch 1024 {COMPILED}",
    f"--device cuda --precision float32 --model 'alexnet(groups=1, lrn=False)' --batch 128 {COMPILED}",
    f"--device cuda --precision float32 --model vgg16 --batch 64 {COMPILED}",
    "--device cuda --precision fp16 --model alexnet --batch 128 --peer torch",
    "--device cuda --precision bf16 --model alexnet --batch 1,128 --mode infer --peer torch",
)


def installed(options: list[str]) -> list[str]:
    """The options without the peers that cannot be imported."""
    packages = {"torch": "torch", "torch-compile": "torch", "onnxruntime": "onnxruntime"}
    absent = {peer for peer, package in packages.items() if find_spec(package) is None}
    pairs = zip(options[::2], options[1::2], strict=True)
    return [word for flag, value in pairs if not (flag == "--peer" and value in absent) for word in (flag, value)]


def without_compiled(options: list[str]) -> list[str]:
    """The options without PyTorch's compiler."""
    pairs = zip(options[::2], options[1::2], strict=True)
    return [word for pair in pairs if pair != ("--peer", "torch-compile") for word in pair]


def measure(options: list[str], seconds: float | None = None) -> list[dict[str, Any]]:
    """What one call of `minidl bench` found; nothing where it failed, which it has told on standard error.

    Raises: subprocess.TimeoutExpired.
    """
    command = [sys.executable, "-m", "minidl", "bench", *options, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", timeout=seconds)
    if done.returncode != 0:
        return []
    found = json.loads(done.stdout)
    measurements: list[dict[str, Any]] = found.get("measurements", [found])
    return measurements


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--quick", action="store_true")
    which.add_argument("--gpu", action="store_true")
    parser.add_argument("--seconds", type=float, default=math.inf)
    asked = parser.parse_args(words)
    if asked.gpu and (problem := gpu_problem()):
        print(problem)
        return 2
    rows = QUICK if asked.quick else GPU if asked.gpu else ALL
    folder = asked.folder or HERE / "results" / ("gpu" if asked.gpu else "cpu")
    end = time.monotonic() + asked.seconds
    commands, found, failed, tried = [], [], 0, 0
    for row in rows:
        measured: list[dict[str, Any]] = []
        options = installed(shlex.split(row))
        try:
            for attempt in dict.fromkeys(map(tuple, (options, without_compiled(options)))):
                command = shlex.join(["minidl", "bench", *attempt])
                print(command, file=sys.stderr, flush=True)
                left = end - time.monotonic()
                if measured := measure([*attempt], None if math.isinf(left) else max(left, 0.1)):
                    break
        except subprocess.TimeoutExpired:
            print(f"no time left for: {', '.join(rows[tried:])}", file=sys.stderr)
            break
        tried += 1
        failed += not measured
        commands += [command] if measured else []
        found += measured
        if found:  # after each, so that an interruption loses little
            write_report(folder, [f for f in found if "ops" not in f], [f for f in found if "ops" in f], commands)
    for line in summary(found):
        print(line)
    report = f"the report is {folder / 'report.html'}" if found else "there is nothing to report"
    print(f"{tried - failed} of {len(rows)} benchmarks; {report}")
    return 1 if failed or not found else 0


def summary(found: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each net: its rate, and how many times as fast as each peer minidl is."""
    for net in found:
        if "ops" not in net:
            best: dict[str, float] = {}
            for peer in net.get("peers", []):
                best[peer["name"]] = min(best.get(peer["name"], math.inf), peer["ratio"])
            ratios = ", ".join(f"{ratio:.2f}× {name}" for name, ratio in best.items())
            yield f"{net_title(net):58} {net['images_per_s']:>12,.1f} images/s  {ratios}".rstrip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
