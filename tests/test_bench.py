"""Benchmarks compare results before they time anything, and say all that a reader needs to judge the figures."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from minidl.bench import measure_net, measure_ops
from minidl.bench.agreement import DisagreementError, agree, relative_error
from minidl.bench.report import write_report
from minidl.bench.task import NetTask, op_tasks
from minidl.bench.timing import quartiles

with_torch = pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed, so it is no peer")


@pytest.fixture(scope="module")
def net():
    return measure_net("lenet5", batch=2, peers=["reference"], threads=1, repeats=2)


def test_a_net_beside_the_reference_bodies(net):
    for name in "images_per_s", "peer_images_per_s", "ratio", "peak_rss_mb", "peer_peak_rss_mb", "median_s":
        assert math.isfinite(net[name]), name
        assert net[name] > 0, name
    assert net["ratio"] == pytest.approx(net["images_per_s"] / net["peer_images_per_s"], rel=0.5)
    assert (net["model"], net["mode"], net["batch"], net["threads"]) == ("lenet5", "train", 2, 1)
    assert net["peer"] == "reference"
    json.dumps(net, allow_nan=False)


@with_torch
def test_a_net_beside_pytorch():
    found = measure_net("lenet5", mode="infer", batch=2, peers=["torch"], threads=1, repeats=2)
    assert {side["variant"] for side in found["peers"]} == {"contiguous", "channels_last"}
    assert found["peer_images_per_s"] == max(side["images_per_s"] for side in found["peers"])


def test_ops_at_the_shapes_of_a_model(net, tmp_path):
    found = measure_ops(["relu", "linear"], model="lenet5", batch=2, peers=["reference"], threads=1, repeats=2)
    assert len(found["ops"]) == len([*op_tasks("relu", "lenet5", 2), *op_tasks("linear", "lenet5", 2)])
    write_report(tmp_path / "report", [net], [found], ["minidl bench"])
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page
    assert "lenet5" in page
    assert json.loads((tmp_path / "report" / "results.json").read_text(encoding="utf-8"))


class Liar:
    """A contender whose results can be chosen."""

    def __init__(self, contender, result):
        self.contender, self._result = contender, result

    def check(self):
        return ["logits"], 0.1

    def result(self, name):
        return self._result


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        (np.full((2, 3), 1.01), "beside liar, logits is .* from ours"),
        (np.ones((3, 2)), "beside liar, logits is inf from ours"),
    ],
)
def test_a_peer_that_computes_something_else_is_not_timed(theirs, message):
    task = NetTask("lenet5", "infer", 2)
    agree(task, Liar("minidl", np.ones((2, 3))), [Liar("honest", np.ones((2, 3)))])
    with pytest.raises(DisagreementError, match=message):
        agree(task, Liar("minidl", np.ones((2, 3))), [Liar("liar", theirs)])
    with pytest.raises(DisagreementError, match="not finite"):
        agree(task, Liar("minidl", np.array([np.nan])), [])


def test_relative_errors():
    assert relative_error(np.array([3.0, 4.5]), np.array([3.0, 4.0])) == pytest.approx(0.1)
    assert relative_error(np.zeros(2), np.zeros(2)) == 0
    assert relative_error(np.ones(2), np.zeros(2)) == math.inf


def test_quartiles():
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx([2.0, 4.0])


def test_the_command_prints_one_object(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "minidl", "bench", "--model", "lenet5", "--batch", "2", "--repeats", "1", "--json"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "MINIDL_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["images_per_s"] > 0
    assert found["threads"] == 1
