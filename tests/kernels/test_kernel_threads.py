from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from unittest.mock import patch

import numpy as np
import pytest
from helpers import same
from threadpoolctl import threadpool_info

from minidl.errors import ArgumentError
from minidl.kernels.blas import one_thread_per_product
from minidl.kernels.threads import _Pool, num_threads, split
from minidl.ops.avg_pool2d import avg_pool2d, avg_pool2d_gradient
from minidl.ops.channel_sum import channel_dot, channel_sum
from minidl.ops.conv2d import col2im, conv2d, conv2d_input_gradient, conv2d_weight_gradient, im2col
from minidl.ops.dropout import dropout
from minidl.ops.local_response_norm import local_response_norm, local_response_norm_gradient
from minidl.ops.max_pool2d import max_pool2d, max_pool2d_gradient
from minidl.ops.relu import relu_gradient
from minidl.random import Key
from minidl.window import Window


@pytest.fixture
def three(monkeypatch):
    monkeypatch.setenv("MINIDL_NUM_THREADS", "3")


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 100])
@pytest.mark.parametrize("threads", ["1", "2", "3", "7"])
def test_every_index_once(n, threads, monkeypatch):
    monkeypatch.setenv("MINIDL_NUM_THREADS", threads)
    seen = np.zeros(n, int)

    def count(seen, start, stop):
        assert start < stop
        seen[start:stop] += 1

    split(n, count, seen, grain=1)
    assert (seen == 1).all()


def test_little_work_stays_in_the_calling_thread(three):
    names = []
    split(3, lambda x, start, stop: names.append((threading.current_thread(), start, stop)), np.zeros(1000))
    assert names == [(threading.current_thread(), 0, 3)]


def test_much_work_is_done_by_several_threads(three):
    together = threading.Barrier(3, timeout=30)  # each part waits for the others
    split(3, lambda x, start, stop: together.wait(), np.zeros(10), grain=1)


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_an_exception_arrives_after_all_parts(three, bad):
    done = []

    def body(x, start, stop):
        if start == bad:
            raise ZeroDivisionError(f"part {bad}")
        done.append(start)

    with pytest.raises(ZeroDivisionError, match=f"part {bad}"):
        split(3, body, np.zeros(10), grain=1)
    assert sorted(done) == sorted({0, 1, 2} - {bad})


def test_calls_may_nest(three):
    total = np.zeros((3, 3), int)

    def inner(total, i, start, stop):
        total[i, start:stop] += 1

    def outer(total, start, stop):
        for i in range(start, stop):
            split(3, inner, total, i, grain=1)

    split(3, outer, total, grain=1)
    assert (total == 1).all()


def test_numpys_error_state_holds_in_every_part(three):
    together, states = threading.Barrier(3, timeout=30), []

    def body(x, start, stop):
        together.wait()
        states.append(np.geterr()["over"])

    with np.errstate(over="raise"):
        split(3, body, np.zeros(10), grain=1)
    assert states == ["raise"] * 3


@pytest.mark.parametrize("fails", [False, True])
def test_no_array_is_kept(three, fails):
    x = np.zeros(10)
    gone = weakref.ref(x)

    def body(x, start, stop):
        if fails:
            raise ZeroDivisionError

    def call(x):
        with suppress(ZeroDivisionError):
            split(3, body, x, grain=1)

    gc.disable()
    try:
        call(x)
        del x
        for _ in range(1000):  # a late helper may still be finding the job empty
            if gone() is None:
                break
            threading.Event().wait(0.01)
        assert gone() is None
    finally:
        gc.enable()


def test_without_threads_the_caller_does_everything(three):
    seen = np.zeros(9, int)

    def count(seen, start, stop):
        seen[start:stop] += 1

    with (
        patch("minidl.kernels.threads._pool", _Pool()),
        patch("minidl.kernels.threads.Thread.start", side_effect=RuntimeError("can't start new thread")),
    ):
        split(9, count, seen, grain=1)
    assert (seen == 1).all()


@pytest.mark.parametrize("wrong", ["0", "-1", "two", "1.5"])
def test_a_wrong_number_of_threads(wrong, monkeypatch):
    monkeypatch.setenv("MINIDL_NUM_THREADS", wrong)
    with pytest.raises(ArgumentError, match=f"MINIDL_NUM_THREADS: expected a positive integer, got '{wrong}'"):
        num_threads()


def test_the_number_of_threads(monkeypatch):
    monkeypatch.setenv("MINIDL_NUM_THREADS", "5")
    assert num_threads() == 5
    monkeypatch.delenv("MINIDL_NUM_THREADS")
    assert num_threads() >= 1


def run(script: str) -> str:
    command = [sys.executable, "-W", "ignore", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


BODY = """
import os, sys, threading, time
import numpy as np
os.environ["MINIDL_NUM_THREADS"] = "3"
from minidl.kernels.threads import split
def count(seen, start, stop): seen[start:stop] += 1
def together(x, barrier, start, stop): barrier.wait(10)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_threads_of_its_own():
    script = """
split(3, together, np.zeros(9), threading.Barrier(3), grain=1)
child = os.fork()
if child == 0:
    split(3, together, np.zeros(9), threading.Barrier(3), grain=1)
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run(BODY + script) == "7\n"


def test_the_process_ends_while_a_kernel_runs():
    script = """
threading.Thread(target=lambda: split(3, lambda x, *_: time.sleep(100), np.zeros(9), grain=1), daemon=True).start()
time.sleep(0.3)
print("end")
"""
    assert run(BODY + script) == "end\n"


def cases(rng):
    """Every kernel on arrays that are large enough to be split; the sum over chunks is exact on integers only."""

    def real(*shape):
        return rng.standard_normal(shape, dtype="float32")

    def whole(*shape):
        return rng.integers(-4, 5, size=shape).astype("float32")

    pool, conv = Window.of(3, stride=2, padding=1), Window.of(3, padding=1)
    x, weight, dy, bias = real(6, 40, 40, 96), real(3, 3, 48, 64), real(6, 40, 40, 64), real(64)
    y, winners = max_pool2d.reference(x, pool)
    return {
        "im2col": lambda: im2col(x, pool),
        "col2im": lambda: col2im(real(6, 40, 40, 3, 3, 16), (6, 40, 40, 16), conv),
        "conv2d": lambda: conv2d(x, weight, bias, conv, 2),
        "conv2d_input_gradient": lambda: conv2d_input_gradient(dy, weight, x.shape, conv, 2),
        "conv2d_weight_gradient": lambda: conv2d_weight_gradient(whole(*x.shape), whole(*dy.shape), conv, 2),
        "max_pool2d": lambda: max_pool2d(x, pool)[1],
        "max_pool2d_gradient": lambda: max_pool2d_gradient(y, winners, x.shape, pool),
        "avg_pool2d": lambda: avg_pool2d(x, pool),
        "avg_pool2d_gradient": lambda: avg_pool2d_gradient(y, x.shape, pool),
        "local_response_norm": lambda: local_response_norm(x, 5, 1e-4, 0.75, 2),
        "local_response_norm_gradient": lambda: local_response_norm_gradient(x, x, 5, 1e-4, 0.75, 2),
        "dropout": lambda: dropout(x, 0.5, Key(1)),
        "relu_gradient": lambda: relu_gradient(x, x),
        "channel_sum": lambda: channel_sum(x),
        "channel_dot": lambda: channel_dot(x, x),
    }


@pytest.mark.parametrize("name", cases(np.random.default_rng(0)))
def test_the_same_bits_for_any_number_of_threads(name, monkeypatch):
    results = []
    for threads in "1", "2", "3", "3":
        monkeypatch.setenv("MINIDL_NUM_THREADS", threads)
        results.append(cases(np.random.default_rng(0))[name]())
    for other in results[1:]:
        same(other, results[0])


def test_the_weight_gradient_repeats_for_one_number_of_threads(three, normal):
    x, dy = normal(9, 27, 27, 32, dtype="float32"), normal(9, 27, 27, 32, seed=1, dtype="float32")
    first = conv2d_weight_gradient(x, dy, Window.of(3, padding=1))
    for _ in range(5):
        same(conv2d_weight_gradient(x, dy, Window.of(3, padding=1)), first)


def blas_threads():
    """How many threads NumPy's matrix products use; other packages bring libraries of their own."""
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return [library["num_threads"] for library in libraries if "numpy" in library["filepath"]] or libraries


def test_kernels_called_from_many_threads_at_once(three):
    before = blas_threads()
    kernels = cases(np.random.default_rng(0))
    chosen = {name: kernels[name] for name in ("conv2d", "max_pool2d", "local_response_norm", "channel_sum")}
    expected = {name: call() for name, call in chosen.items()}

    def call(name):
        same(chosen[name](), expected[name])

    with ThreadPoolExecutor(4) as pool:
        for result in [pool.submit(call, name) for _ in range(5) for name in chosen]:
            result.result()
    assert blas_threads() == before


def test_products_use_one_thread_while_anyone_asks():
    before = blas_threads()
    with one_thread_per_product():
        with pytest.raises(ZeroDivisionError), one_thread_per_product():
            raise ZeroDivisionError
        assert set(blas_threads()) <= {1}
    assert blas_threads() == before
