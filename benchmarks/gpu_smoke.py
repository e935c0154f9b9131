"""Every CUDA kernel once, at small odd shapes: python benchmarks/gpu_smoke.py [--device cuda]

Each op runs on the device in each dtype, with numbers of channels that vectors of 16 bytes divide and that they do
not, and its results are held against those of its own body, on the CPU in float64. Then each layer and loss of the
catalogue, forward and backward. Fails where two differ, and where a kernel of kernels/*.cu was not run.

NVIDIA's compute-sanitizer can watch it. Memory comes from the driver and not from CuPy's pool, so that it sees the
bounds of each array.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np

from minidl import Key, settings
from minidl.arrays import Array, array_module, float_dtype, has_float_dtype, is_array, parse_device, to_device, to_host
from minidl.catalogue import LAYERS, LOSSES
from minidl.errors import MinidlError
from minidl.initializers import he, initialize
from minidl.kernels import cuda, implicit_gemm
from minidl.ops import (
    adamw,
    avg_pool2d,
    batch_norm2d,
    channel_sum,
    conv2d,
    crop,
    dropout,
    linear,
    local_response_norm,
    max_pool2d,
    relu,
    sgd,
    softmax,
    softmax_cross_entropy,
)
from minidl.window import Window

TOLERANCES = {
    "float64": 1e-10,
    "float32": 1e-4,
    "tf32": 2.0**-7,
    "float16": 2.0**-7,
    "bfloat16": 2.0**-4,
}  # of the largest result
DTYPES = ("float64", "float32", "float16", "bfloat16")
KEY = Key(3)
Case = tuple[Any, tuple[Any, ...]]  # an op and its arguments


def cases(dtype: str) -> Iterator[Case]:
    generator = np.random.default_rng(0)

    def normal(*shape: int) -> Array:
        return generator.standard_normal(shape).astype(float_dtype(dtype))

    for C in 3, 8, 16:
        x = normal(2, 7, 5, C)
        for window in Window.of(3, stride=2), Window.of((3, 2), stride=(2, 1), padding=((1, 0), (0, 1))), Window.of(1):
            shape = (2, *window.output_size(7, 5), C)
            yield conv2d.im2col, (x, window)
            yield conv2d.col2im, (normal(*shape[:3], *window.kernel, C), x.shape, window)
            winners = max_pool2d.max_pool2d.reference(x, window)[1]
            yield max_pool2d.max_pool2d, (x, window)
            yield max_pool2d.max_pool2d_gradient, (normal(*shape), winners, x.shape, window)
            yield avg_pool2d.avg_pool2d, (x, window, False)
            yield avg_pool2d.avg_pool2d_gradient, (normal(*shape), x.shape, window, False)
            for O, groups in (C, 1), (7, 1), (C, C if C == 3 else 2):
                weight, bias, dy = normal(*window.kernel, C // groups, O), normal(O), normal(*shape[:3], O)
                yield conv2d.conv2d, (x, weight, bias, window, groups, True)
                yield conv2d.conv2d, (x, weight, None, window, groups)
                yield conv2d.conv2d_input_gradient, (dy, weight, x.shape, window, groups)
                yield conv2d.conv2d_weight_gradient, (x, dy, window, groups)
        for size, groups in (5, 1), (4, 1), (3, C if C == 3 else 2):
            constants = size, 0.5, 0.75, 0.7, groups
            yield local_response_norm.local_response_norm, (x, *constants)
            yield local_response_norm.local_response_norm_gradient, (normal(*x.shape), x, *constants)
        wide = Window.of(17, padding=8)  # whose taps take two bytes to number
        y, winners = max_pool2d.max_pool2d.reference(x, wide)
        yield max_pool2d.max_pool2d, (x, wide)
        yield max_pool2d.max_pool2d_gradient, (normal(*y.shape), winners, x.shape, wide)
        yield relu.relu, (x,)
        yield relu.relu_gradient, (normal(*x.shape), x)
        yield channel_sum.channel_sum, (x,)
        yield channel_sum.channel_dot, (x, normal(*x.shape))
        yield dropout.dropout, (x, 0.4, KEY)
        for rows, columns in (5, C), (3, 1037):
            a, weight, b = normal(rows, columns), normal(columns, C), normal(rows, C)
            yield linear.linear, (a, weight, normal(C), True)
            yield linear.linear, (a, weight, None)
            yield linear.linear_input_gradient, (b, weight)
            yield linear.linear_weight_gradient, (a, b)
            for op in softmax.softmax, softmax.log_softmax:
                yield op, (a,)
            p, log_p = (
                op.reference(a.astype(np.float64)).astype(a.dtype) for op in (softmax.softmax, softmax.log_softmax)
            )
            yield softmax.softmax_gradient, (normal(*a.shape), p)
            yield softmax.log_softmax_gradient, (normal(*a.shape), log_p)
            labels, class_weights = generator.integers(-1, columns, rows), abs(normal(columns))
            for smoothing in 0.0, 0.1:
                yield softmax_cross_entropy.softmax_cross_entropy, (a, labels, class_weights, smoothing)
                arguments = normal(rows), log_p, labels, class_weights, smoothing
                yield softmax_cross_entropy.softmax_cross_entropy_gradient, arguments
        value, gradient, first, second = (normal(11, C) for _ in range(4))
        for nesterov in False, True:
            for op in sgd.sgd_paper, sgd.sgd_torch:
                yield op, (value.copy(), gradient, first.copy(), 0.01, 0.9, 5e-4, nesterov)
        statistics = [normal(C).astype(np.promote_types(x.dtype, "float32")) for _ in range(3)]
        yield batch_norm2d.batch_statistics, (x,)
        yield batch_norm2d.batch_norm2d, (x, *statistics, normal(C), normal(C))
        yield batch_norm2d.batch_norm2d_parameter_gradients, (normal(*x.shape), x, *statistics)
        yield (
            batch_norm2d.batch_norm2d_input_gradient,
            (normal(*x.shape), x, *statistics, *(normal(C) for _ in range(3))),
        )
        images, offsets = generator.integers(0, 256, (3, 9, 8, C)).astype(np.uint8), generator.integers(0, 3, (3, 2))
        yield crop.crop, (images, offsets, np.array([True, False, True]), normal(C), abs(normal(C)) + 1, (5, 6))
        yield adamw.adamw, (value, gradient, first, abs(second), 3, 0.01, 0.9, 0.999, 1e-4, 0.01)

    for C, O, window in (
        (72, 136, Window.of((1, 2))),  # of more than one tile
        (3, 8, Window.of(5, stride=4)),  # regrouped, in half precision
        (3, 8, Window.of(3, stride=2)),  # and in float32
    ):
        x, weight = normal(1, 12, 13, C), normal(*window.kernel, C, O)
        dy = normal(1, *window.output_size(12, 13), O)
        yield conv2d.conv2d, (x, weight, normal(O), window)
        yield conv2d.conv2d_input_gradient, (dy, weight, x.shape, window)
        yield conv2d.conv2d_weight_gradient, (x, dy, window)


CONVOLUTIONS = conv2d.conv2d, conv2d.conv2d_input_gradient, conv2d.conv2d_weight_gradient


@contextmanager
def large_tiles(wanted: bool) -> Iterator[None]:
    """Let the tensor cores' kernels take the tiles that they otherwise take for large convolutions only."""
    before = implicit_gemm.FULL
    implicit_gemm.FULL = 1 if wanted else before
    try:
        yield
    finally:
        implicit_gemm.FULL = before


def check_op(op: Any, arguments: tuple[Any, ...], device: str, dtype: str, algorithm: str = "auto") -> float:
    """How far an op's results are from those of its body, in units of what is allowed.

    algorithm: of convolutions; "implicit" computes on tensor cores, float32 in TF32, and "large" in large tiles.
    """
    there = [to_device(x.copy(), device) if is_array(x) else x for x in arguments]
    here = [x.astype(np.float64) if is_array(x) and has_float_dtype(x) else x for x in arguments]
    large, algorithm = algorithm == "large", "implicit" if algorithm == "large" else algorithm
    tf32 = algorithm == "implicit" and dtype == "float32"
    with settings(conv2d=algorithm, tf32=tf32), large_tiles(large):
        found = op(*there)
    expected = op.reference(*here)
    if found is None:  # it has written into its arguments
        found, expected = ([x for x in values if is_array(x)] for values in (there, here))
    return largest_error(found, expected, "tf32" if tf32 else dtype)


def largest_error(found: Any, expected: Any, dtype: str, least: float = 0.1) -> float:
    """‖a − b‖∞ / ‖b‖∞ of the worst pair of arrays, in units of the tolerance; whole numbers must be equal.

    least: stands for a norm that is smaller, such as that of the gradient of a bias that has no influence.
    """
    if isinstance(found, tuple | list):
        return max((largest_error(a, b, dtype, least) for a, b in zip(found, expected, strict=True)), default=0.0)
    a, b = np.asarray(to_host(found) if is_array(found) else found), np.asarray(expected)
    if a.shape != b.shape or not (a.dtype.kind in "iu" or np.isfinite(a.astype(np.float64)).all()):
        return float("inf")
    if a.dtype.kind in "iu":
        return 0.0 if (a == b).all() else float("inf")
    error = np.abs(a.astype(np.float64) - b).max(initial=0)
    return float(error / np.abs(b).max(initial=least) / TOLERANCES[dtype])


def check_layer(line: str, device: str, dtype: str) -> float:
    """y, dx and all gradients of a layer, held against those of the plain bodies on the CPU in float64."""
    make, shape = LAYERS[line]
    generator, layer = np.random.default_rng(1), make()
    if any(name.endswith("weight") for name in layer.parameters()):
        initialize(layer, {"*weight": he}, KEY)  # else they would depend on the layers that were made before
    rounded = layer.to(dtype=dtype)
    x = generator.standard_normal(shape).astype(float_dtype(dtype))
    dy = generator.standard_normal((len(x), *rounded.output_shape(shape[1:]))).astype(x.dtype)

    def passes(where: str, kind: str) -> list[Array]:
        layer = deepcopy(rounded).to(where, kind)
        y, cache = layer.forward(to_device(x.astype(float_dtype(kind)), where), train=True, key=KEY)
        dx = layer.backward(to_device(dy.astype(float_dtype(kind)), where), cache)
        return [y, dx, *(parameter.grad for parameter in layer.parameters().values())]

    found = passes(device, dtype)
    with settings(kernels="reference"):
        return largest_error(found, passes("cpu", "float64"), dtype, least=1.0)


def check_loss(line: str, device: str, dtype: str) -> float:
    """The value and the gradient of a loss."""
    make, shape, targets = LOSSES[line]
    generator = np.random.default_rng(1)
    outputs = generator.standard_normal(shape).astype(dtype)
    targets = generator.standard_normal(targets).astype(dtype) if isinstance(targets, tuple) else np.array(targets)

    def passes(where: str, kind: str) -> list[Array]:
        loss, aims = make(), targets.astype(kind) if targets.dtype.kind == "f" else targets
        value, cache = loss.forward(to_device(outputs.astype(kind), where), to_device(aims, where))
        return [value, loss.backward(cache)]

    found = passes(device, dtype)
    with settings(kernels="reference"):
        return largest_error(found, passes("cpu", "float64"), dtype)


class Recorder:
    """A backend that notes which kernels it launches."""

    def __init__(self, backend: cuda.Backend) -> None:
        self.backend, self.launched = backend, set[tuple[str, str]]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def launch(self, instance: cuda.Instance, *arguments: Any) -> None:
        self.launched.add((instance.kernel.stem, instance.kernel.name))
        self.backend.launch(instance, *arguments)


@contextmanager
def recording() -> Iterator[Recorder]:
    recorder = Recorder(cuda._backend)
    with cuda.computed_by(recorder):
        yield recorder


def declared() -> set[tuple[str, str]]:
    """All kernels that there are."""
    stems = [path.stem for path in cuda.FOLDER.glob("*.cu")]
    return {(stem, name) for stem in stems for name in cuda.Source(stem).kernels}


def checks(device: str, dtypes: Sequence[str]) -> list[tuple[str, Callable[..., float], tuple[Any, ...]]]:
    """All there is to check: what to call it, and the function and arguments that give its error. They are shuffled, so
    that some of them are a sample of all.
    """
    todo: list[tuple[str, Callable[..., float], tuple[Any, ...]]] = []
    for dtype in dtypes:
        tensor_cores = dtype != "float64" and cuda._backend.holds(to_device(np.zeros(1), device))
        for op, arguments in cases(dtype):
            name = f"{op.name} of {told(arguments)} in {dtype}"
            todo.append((name, check_op, (op, arguments, device, dtype)))
            for algorithm in ("im2col", "implicit", "large") if tensor_cores else ("im2col",):
                if op in CONVOLUTIONS:
                    todo.append((f"{name} by {algorithm}", check_op, (op, arguments, device, dtype, algorithm)))
        todo += [(f"{line} in {dtype}", check_layer, (line, device, dtype)) for line in LAYERS]
        if dtype in ("float32", "float64"):
            todo += [(f"{line} in {dtype}", check_loss, (line, device, dtype)) for line in LOSSES]
    random.Random(0).shuffle(todo)
    return todo


def smoke(
    device: str, dtypes: Sequence[str], seconds: float = math.inf
) -> tuple[int, int, list[str], set[tuple[str, str]]]:
    """How many checks were made in the time given, of how many; what was found wrong; and the kernels that ran."""
    end = time.monotonic() + seconds
    todo, complaints, count = checks(device, dtypes), [], 0
    with recording() as recorder:
        for name, check, arguments in todo:
            if time.monotonic() > end:
                break
            count += 1
            try:
                error = check(*arguments)
                complaint = f"{error:.1f} times the error that is allowed" if not error <= 1 else ""
            except Exception as failure:  # told, and the others go on
                complaint = f"{type(failure).__name__}: {failure}"
            if complaint:
                complaints.append(f"{name}: {complaint}")
                print(complaints[-1], flush=True)  # at once, as time may run out
    return count, len(todo), complaints, recorder.launched


def told(arguments: tuple[Any, ...]) -> str:
    """What an op is called with: arrays by their shape."""
    return ", ".join(str(a.shape) if is_array(a) else str(a) for a in arguments)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N; or cpu, where no kernel need run")
    parser.add_argument("--dtype", action="append", choices=DTYPES, help="only this; repeatable")
    parser.add_argument(
        "--seconds",
        type=float,
        default=math.inf,
        help="only the checks that there is time for; the exit code is 124 where that is not all of them",
    )
    options = parser.parse_args(words)
    try:
        device = parse_device(options.device)
    except MinidlError as error:
        print(error)
        return 2
    if device != "cpu":
        array_module(to_device(np.zeros(1), device)).cuda.set_allocator(None)
    count, wanted, complaints, launched = smoke(device, options.dtype or list(DTYPES), options.seconds)
    missing = sorted(declared() - launched) if device != "cpu" and count == wanted else []
    for stem, name in missing:
        print(f"{stem}.cu: {name} was not run")
    of_all = "" if count == wanted else f" of {wanted}, for which there was time,"
    wrong = len(complaints) + len(missing)
    print(f"{count} checks{of_all} on {device}, {len(launched)} kernels, {wrong} complaints")
    return 1 if wrong else 0 if count == wanted else 124  # as of the command `timeout`


if __name__ == "__main__":
    sys.exit(main())
