"""All benchmarks, one after another, into one report: python benchmarks/run.py [--quick] [FOLDER]

Each is a call of `minidl bench` that can be run by itself; the report shows them. A benchmark that fails is told, and
the others go on. `--quick` runs two small ones, to see that everything works. Peers that are not installed are left
out.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from minidl.bench.report import write_report

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


def installed(options: list[str]) -> list[str]:
    """The options without the peers that cannot be imported."""
    packages = {"torch": "torch", "torch-compile": "torch", "onnxruntime": "onnxruntime"}
    absent = {peer for peer, package in packages.items() if find_spec(package) is None}
    pairs = zip(options[::2], options[1::2], strict=True)
    return [word for flag, value in pairs if not (flag == "--peer" and value in absent) for word in (flag, value)]


def measure(options: list[str]) -> list[dict[str, Any]]:
    """What one call of `minidl bench` found; nothing where it failed, which it has told on standard error."""
    command = [sys.executable, "-m", "minidl", "bench", *options, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    if done.returncode != 0:
        return []
    found = json.loads(done.stdout)
    measurements: list[dict[str, Any]] = found.get("measurements", [found])
    return measurements


def main(arguments: list[str]) -> int:
    rows = QUICK if "--quick" in arguments else ALL
    folder = Path(next((word for word in arguments if not word.startswith("--")), HERE / "results" / "cpu"))
    commands, found, failed = [], [], 0
    for row in rows:
        options = installed(shlex.split(row))
        command = shlex.join(["minidl", "bench", *options])
        print(command, file=sys.stderr, flush=True)
        measured = measure(options)
        failed += not measured
        commands += [command] if measured else []
        found += measured
        if found:  # after each, so that an interruption loses little
            write_report(folder, [f for f in found if "ops" not in f], [f for f in found if "ops" in f], commands)
    print(f"{len(rows) - failed} of {len(rows)} benchmarks; the report is {folder / 'report.html'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
