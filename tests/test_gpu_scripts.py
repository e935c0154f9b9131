"""The scripts for a machine with a GPU, as far as they run without one."""

from __future__ import annotations

import importlib.util
import math
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import cuda_shim
import fake_cupy
import numpy as np
import pytest

from minidl.accelerate import accelerated

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


smoke, equality, run = (script(name) for name in ("gpu_smoke", "gpu_equality", "run"))


# --- every kernel once --------------------------------------------------------------------------------------------


def test_the_kernels_of_the_cpu_agree_with_the_bodies(capsys):
    assert smoke.main(["--device", "cpu"]) == 0, capsys.readouterr().out
    assert "on cpu, 0 kernels, 0 complaints" in capsys.readouterr().out


@pytest.mark.skipif(cuda_shim.missing() is not None, reason=str(cuda_shim.missing()))
@pytest.mark.parametrize("dtype", smoke.DTYPES)
def test_a_gpu_would_pass_and_no_kernel_is_left_out(dtype):
    with fake_cupy.installed("auto"):
        _, _, complaints, launched = smoke.smoke("cuda:0", [dtype])
    assert complaints == []
    on_tensor_cores = {kernel for kernel in smoke.declared() if kernel[0] == "implicit_gemm"}
    assert launched == smoke.declared() - (on_tensor_cores if dtype == "float64" else set())


def test_no_op_is_left_out():
    named = {op.name for op, _ in smoke.cases("float32")}
    folder = Path(smoke.conv2d.__file__).parent
    ops = {
        value.name
        for path in folder.glob("*.py")
        for value in vars(importlib.import_module(f"minidl.ops.{path.stem}")).values()
        if isinstance(value, accelerated)
    }
    assert ops == named


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_wrong_kernel_is_told(dtype, monkeypatch):
    from minidl.ops import relu

    right = relu.relu_gradient.reference
    monkeypatch.setattr(relu.relu_gradient, "reference", lambda dy, y: right(dy, y) * 1.5)
    _, _, complaints, _ = smoke.smoke("cpu", [dtype])
    assert any(complaint.startswith("relu_gradient of (2, 7, 5, 3)") for complaint in complaints)


def test_largest_errors():
    ones = np.ones(3)
    assert smoke.largest_error(ones, ones, "float32") == 0
    assert smoke.largest_error(ones + 1e-4, ones, "float32") == pytest.approx(1)
    assert smoke.largest_error(ones * np.nan, ones, "float32") == math.inf
    assert smoke.largest_error(np.array([1, 2]), np.array([1, 3]), "float32") == math.inf
    assert smoke.largest_error((ones, ones), (ones, 2 * ones), "float32") > 1


def test_smoke_ends_in_time_and_says_how_far_it_came(capsys):
    assert smoke.main(["--device", "cpu", "--dtype", "float32", "--seconds", "0"]) == 124
    assert re.search(r"^0 checks of \d{3}, for which there was time, on cpu, 0 kernels", capsys.readouterr().out)


@pytest.mark.parametrize("main", [smoke.main, equality.main])
def test_without_a_gpu_the_scripts_say_so(main, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert main(["--device", "cuda:7"]) == 2
    assert capsys.readouterr().out.startswith("device 'cuda:7': ")


def test_without_a_gpu_nothing_is_measured(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(run, "gpu_problem", lambda: "no GPU")
    monkeypatch.setattr(run, "measure", None)
    assert run.main(["--gpu", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().out == "no GPU\n"
    assert not (tmp_path / "out").exists()


def test_a_report_that_was_not_written_is_not_promised(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(run, "measure", lambda options, seconds: [])
    assert run.main(["--quick", str(tmp_path)]) == 1
    assert capsys.readouterr().out == f"0 of {len(run.QUICK)} benchmarks; there is nothing to report\n"


# --- the same training --------------------------------------------------------------------------------------------


def test_the_cpu_trains_as_itself(capsys):
    assert equality.main(["--device", "cpu", "--steps", "2"]) == 0
    said = capsys.readouterr().out
    assert "dropout masks: 0 elements differ" in said
    assert "float64: losses of 2 steps differ by 0.0e+00" in said
    assert "float32: losses of 2 steps differ by 0.0e+00" in said


def test_a_training_ends_in_time(capsys):
    assert equality.main(["--device", "cpu", "--steps", "9", "--seconds", "0"]) == 0
    assert "float64: losses of 1 steps differ by 0.0e+00" in capsys.readouterr().out


def test_a_training_that_parts_is_noticed(monkeypatch):
    honest = equality.train_step

    def wrong(net, loss, optimizer, images, labels, lr, key):
        careless = wrong.calls % 2  # every other call is the GPU's
        wrong.calls += 1
        return honest(net, loss, optimizer, images, labels, lr * (1.001 if careless else 1), key)

    wrong.calls = 0
    monkeypatch.setattr(equality, "train_step", wrong)
    told = []
    assert equality.largest_difference("cpu", "float64", 3, tell=told.append)[0] > 1e-9
    assert any(line.startswith("float64 step 2") for line in told)


# --- benchmarks ---------------------------------------------------------------------------------------------------


def test_every_benchmark_is_one_that_the_command_knows():
    from minidl.bench.contenders import VARIANTS
    from minidl.bench.task import PRECISIONS, describe

    for row in (*run.ALL, *run.GPU, *run.QUICK):
        words = shlex.split(row)
        options = list(zip(words[::2], words[1::2], strict=True))
        for flag, value in options:
            known = {"--peer": VARIANTS, "--precision": PRECISIONS, "--device": ("cuda", "cpu,cuda")}
            assert value in known.get(flag, [value]), row
        describe(dict(options)["--model"])


def test_what_there_is_no_time_for_is_left_out(monkeypatch, tmp_path, capsys):
    asked = []

    def measure(options, seconds):
        asked.append(options)
        if len(asked) == 3:
            raise subprocess.TimeoutExpired("minidl", seconds)
        return [] if "torch-compile" in options else [{"model": "lenet5", "ops": [], "peers": []}]

    monkeypatch.setattr(run, "measure", measure)
    monkeypatch.setattr(run, "installed", lambda options: options)
    monkeypatch.setattr(run, "write_report", lambda *parts: None)
    monkeypatch.setattr(run, "gpu_problem", lambda: None)
    assert run.main(["--gpu", "--seconds", "60", str(tmp_path)]) == 0
    assert ("torch-compile" in asked[0], "torch-compile" in asked[1]) == (True, False)
    assert [word for word in asked[0] if word != "torch-compile"] == [*asked[1], "--peer"]
    assert f"1 of {len(run.GPU)} benchmarks" in capsys.readouterr().out


def test_the_table_names_rates_and_ratios():
    peers = [{"name": "torch", "ratio": 1.5}, {"name": "torch", "ratio": 1.2}, {"name": "minidl-cpu", "ratio": 90.0}]
    net = {"model": "alexnet", "mode": "train", "batch": 8, "device": "cuda:0", "precision": "bf16", "threads": 2}
    (line,) = run.summary([{**net, "images_per_s": 12_345.6, "peers": peers}, {"ops": []}])
    assert " ".join(line.split()) == (
        "alexnet, train, batch 8, cuda:0, bf16 12,345.6 images/s 1.20× torch, 90.00× minidl-cpu"
    )


# --- all of it ----------------------------------------------------------------------------------------------------

FAKE = """#!/bin/bash
echo "$@" >>"$CALLS"
case "$*" in
*"minidl doctor"*) exit 2 ;;
*$SLOW*) sleep 20 ;;
*$WRONG*) echo something is wrong; exit 3 ;;
*run.py*) echo "alexnet  1,000.0 images/s  1.20× torch" ;;
esac
"""


@pytest.fixture
def report(tmp_path):
    if shutil.which("bash") is None or shutil.which("timeout") is None:
        pytest.skip("bash and timeout are not installed")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {"python3": FAKE, "compute-sanitizer": '#!/bin/bash\nexec "${@:5}"\n'}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)

    def started(**variables):
        environment = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "CALLS": str(tmp_path / "calls")}
        environment |= {"SLOW": "nothing", "WRONG": "nothing", **variables}
        command = ["bash", str(BENCHMARKS / "gpu_report.sh"), str(tmp_path / "out")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        steps = dict(line.split(None, 1) for line in (tmp_path / "out" / "steps.txt").read_text().splitlines())
        calls = (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []
        return done, {name: said.partition(" s  ")[2] for name, said in steps.items()}, calls

    return started


def test_all_steps_run_in_order(report, tmp_path):
    done, steps, calls = report()
    assert done.returncode == 0, done.stdout + done.stderr
    order = ["doctor", "smoke", "tests", "equality", "memcheck", "racecheck", "initcheck", "synccheck", "bench"]
    assert list(steps) == order
    assert set(steps.values()) == {"passed"}
    assert {path.stem for path in (tmp_path / "out" / "logs").iterdir()} == set(order)
    assert sum("gpu_smoke.py" in call for call in calls) == 5
    assert any("-m pytest -q -m gpu" in call for call in calls)
    assert "run.py --gpu --seconds 58" in calls[-1]
    assert calls[-1].endswith(str(tmp_path / "out"))
    assert done.stdout.splitlines()[-2:] == [
        "alexnet  1,000.0 images/s  1.20× torch", f"logs and report are in {tmp_path / 'out'}"
    ]  # fmt: skip


def test_a_step_that_fails_does_not_stop_the_next(report, tmp_path):
    done, steps, _ = report(WRONG="gpu_equality", STEPS="smoke equality bench")
    assert done.returncode == 1
    assert steps == {"smoke": "passed", "equality": "FAILED: see logs/equality.log", "bench": "passed"}
    assert (tmp_path / "out" / "logs" / "equality.log").read_text() == "something is wrong\n"


def test_a_step_that_hangs_is_ended_and_the_rest_is_told(report):
    done, steps, calls = report(SLOW="gpu_smoke", STEPS="smoke equality", LIMIT="1")
    assert done.returncode == 1
    assert steps == dict.fromkeys(["smoke", "equality"], "FAILED: out of time")
    assert len(calls) == 1


def test_a_missing_tool_is_no_failure(report, tmp_path):
    (tmp_path / "bin" / "compute-sanitizer").unlink()
    done, steps, _ = report(STEPS="memcheck")
    if steps["memcheck"] != "passed":  # where the toolkit has none either
        assert steps["memcheck"].startswith("skipped: compute-sanitizer is not installed")
    assert done.returncode == 0


def test_missing_packages_are_no_failure(report):
    done, steps, calls = report(WRONG="import pytest", STEPS="tests")
    assert done.returncode == 0
    assert steps["tests"].startswith("skipped: ")
    assert steps["tests"].endswith("pip install pytest hypothesis")
    assert len(calls) == 1


def test_the_steps_leave_time_for_the_benchmarks():
    limits = re.findall(r"\[\w+\]=(\d+)", (BENCHMARKS / "gpu_report.sh").read_text())
    assert len(limits) == 8
    assert sum(map(int, limits)) < 360
