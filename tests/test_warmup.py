"""Compiling ahead, what the first run says, and a folder for compiled kernels that cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

STEP = """
import logging, sys
logging.basicConfig(level=logging.INFO, format="%(message)s")
import numpy as np
from minidl import Key, models
from minidl.inference import fuse, inference
from minidl.losses import SoftmaxCrossEntropy
from minidl.optim import SGD
from minidl.training.step import train_step
for name in sys.argv[1:]:
    architecture, options = models.parse(name)
    net = fuse(architecture.build(**options))
    size = architecture.input_size
    images = np.zeros((4, size, size, architecture.input_channels), np.float32)
    sgd = SGD(net.parameters(), momentum=0.9)
    train_step(net, SoftmaxCrossEntropy(), sgd, images, np.zeros(4, int), 0.01, Key(0))
    inference(net)(images)
print("trained")
"""


def run(folder, *command):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    return subprocess.run([sys.executable, *command], text=True, capture_output=True, env=environment, check=True)


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernels")
    return folder, run(folder, "-m", "minidl", "warmup")


def test_warmup_says_what_it_does(warm):
    folder, done = warm
    assert done.stdout.startswith("all kernels are compiled (")
    assert done.stderr.count("compiling kernels, to be kept in ") == 1
    assert str(folder) in done.stderr
    assert "warmup" in done.stderr


def test_after_warmup_no_model_compiles_anything(warm):
    done = run(warm[0], "-c", STEP, "alexnet_mini", "alexnet(lrn=False)", "alexnet", "lenet5")
    assert (done.stdout, done.stderr) == ("trained\n", "")


def test_the_first_run_says_once_what_takes_so_long(tmp_path):
    done = run(tmp_path, "-c", STEP, "lenet5")
    assert done.stderr.count("\n") == 1
    assert "compiling kernels" in done.stderr
    assert run(tmp_path, "-c", STEP, "lenet5").stderr == ""


def test_kernels_that_cannot_be_kept(tmp_path):
    nowhere = "from numba.core.caching import CacheImpl; CacheImpl._locator_classes = []"
    done = run(tmp_path, "-c", f"{nowhere}\n{STEP}", "lenet5")
    assert done.stdout == "trained\n"
    assert done.stderr.count("\n") == 1
    assert "compiled kernels cannot be kept on disk (" in done.stderr
    assert "set NUMBA_CACHE_DIR to a folder that can be written" in done.stderr
