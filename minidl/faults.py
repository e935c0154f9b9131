"""Faults to plant on purpose, to see what a gradient check makes of them:

    minidl gradcheck local_response_norm --break neighbours --plot broken.png

Each changes one line of a backward pass into what one might have written by mistake.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import CodeType, FunctionType, ModuleType

from minidl.accelerate import settings
from minidl.errors import ArgumentError, UnknownNameError


@dataclass(frozen=True)
class Fault:
    """One wrong line.

    name: the term that is broken, as `--break` takes it.
    subject: the kind of the catalogue that it breaks, such as "Conv2d".
    file: where, from the top of the repository.
    correct, wrong: the text that stands there, exactly once, and the text in its place.
    says: what the mistake is.
    """

    name: str
    subject: str
    file: str
    correct: str
    wrong: str
    says: str

    @property
    def module(self) -> str:
        """The module that the file is."""
        return self.file.removesuffix(".py").replace("/", ".")


CONV2D, LINEAR = "minidl/ops/conv2d.py", "minidl/ops/linear.py"
LRN, SOFTMAX = "minidl/ops/local_response_norm.py", "minidl/ops/softmax.py"
MAX_POOL2D, AVG_POOL2D = "minidl/ops/max_pool2d.py", "minidl/ops/avg_pool2d.py"
BATCH_NORM2D, LOSSES, COMBINE = "minidl/ops/batch_norm2d.py", "minidl/losses.py", "minidl/combine.py"

# fmt: off
FAULTS = (
    Fault("overlap", "Conv2d", CONV2D,
          "padded[:, rows, columns] += cols[:, :, :, i, j]",
          "padded[:, rows, columns] = cols[:, :, :, i, j]",
          "an input pixel that several windows see keeps the last window's gradient instead of the sum"),
    Fault("padding", "Conv2d", CONV2D,
          "padded[:, top : top + H, left : left + W].copy()",
          "padded[:, :H, :W].copy()",
          "the gradient of the padded image is cut at its corner, not where the image lies in it"),
    Fault("bias", "Conv2d", "minidl/layers/conv2d.py",
          "self.bias.accumulate(channel_sum(dy))",
          "self.bias.accumulate(dy[0].sum(axis=(0, 1)))",
          "the bias gets the gradient of the first sample only"),
    Fault("mean", "Linear", LINEAR,
          "dweight: Array = x.T @ dy",
          "dweight: Array = x.T @ dy / len(x)",
          "the weight's gradient is averaged over the batch, which is the loss's affair"),
    Fault("gate", "ReLU", "minidl/ops/relu.py",
          "where(y > 0, dy, dy.dtype.type(0))",
          "where(y > 0, dy, dy)",
          "what was cut off forward gets a gradient all the same"),
    Fault("square", "Tanh", "minidl/layers/tanh.py",
          "dy * (1 - y * y)",
          "dy * (1 - y)",
          "the derivative of tanh is 1 − tanh², not 1 − tanh"),
    Fault("sum", "Softmax", SOFTMAX,
          "y * (dy - (dy * y).sum(axis=-1, keepdims=True))",
          "y * (dy - dy * y)",
          "the diagonal of the Jacobian only: the classes no longer push each other down"),
    Fault("neighbours", "LocalResponseNorm", LRN,
          "dy * s**-beta - (2 * beta * scale) * x * through_neighbours",
          "dy * s**-beta",
          "the normaliser is taken for a constant: the term across channels is missing"),
    Fault("window", "LocalResponseNorm", LRN,
          "s**-beta / s, after, before, groups)",
          "s**-beta / s, before, after, groups)",
          "the window of the backward pass is not turned around, which shows where it is even"),
    Fault("factor", "LocalResponseNorm", LRN,
          "(2 * beta * scale) * x",
          "(beta * scale) * x",
          "the derivative of a square without its 2"),
    Fault("overlap", "MaxPool2d", MAX_POOL2D,
          "padded[:, rows, columns] += xp.where(",
          "padded[:, rows, columns] = xp.where(",
          "a pixel that won several windows keeps the last gradient instead of the sum"),
    Fault("winner", "MaxPool2d", MAX_POOL2D,
          "xp.where(winners == i * KW + j, dy, dy.dtype.type(0))",
          "xp.where(winners == j * KW + i, dy, dy.dtype.type(0))",
          "row and column of the winning tap are mixed up"),
    Fault("count", "AvgPool2d", AVG_POOL2D,
          "share = dy / tap_counts(xp, H, W, window, count_include_pad).astype(dy.dtype)",
          "share = dy / dy.dtype.type(window.kernel[0] * window.kernel[1])",
          "each window divides by its full size, also where it hangs over the edge"),
    Fault("mean", "BatchNorm2d", BATCH_NORM2D,
          "dx: NHWC = dy - dbeta / m",
          "dx: NHWC = dy.copy()",
          "the mean is taken for a constant, though each x moves it"),
    Fault("variance", "BatchNorm2d", BATCH_NORM2D,
          "dx -= _normalised(x, mean, rest, inv_std) * (dgamma / m)",
          "pass",
          "the variance is taken for a constant, though each x moves it"),
    Fault("scale", "Dropout", "minidl/layers/dropout.py",
          "return dropout(dy, self.p, key) if self.p else dy",
          "return dropout(dy, self.p, key) * dy.dtype.type(1 - self.p) if self.p else dy",
          "backward forgets the 1/(1 − p) of the forward pass"),
    Fault("mask", "Dropout", "minidl/layers/dropout.py",
          "return dropout(dy, self.p, key) if self.p else dy",
          "return dropout(dy, self.p, key.at(1)) if self.p else dy",
          "backward draws another mask than forward did"),
    Fault("smoothing", "SoftmaxCrossEntropy", "minidl/ops/softmax_cross_entropy.py",
          "dlogits *= (dlosses * (at_label + everywhere.sum()))[:, None]",
          "dlogits *= (dlosses * at_label)[:, None]",
          "p is multiplied by the label's part of the target alone: right without smoothing"),
    Fault("mean", "SoftmaxCrossEntropy", LOSSES,
          "xp.asarray(scale * share, log_p.dtype)",
          "xp.asarray(scale, log_p.dtype)",
          "the loss is a mean, its gradient is that of a sum"),
    Fault("branches", "Sum", COMBINE,
          "_total([dx for dx in dxs if dx is not None]) if input_gradient else None",
          "dxs[0]",
          "the input gets the gradient of the first branch only"),
    Fault("branches", "Concat", COMBINE,
          "start += width",
          "pass",
          "every branch gets the gradient of the first channels"),
)
# fmt: on


def named(subject: str, name: str) -> Fault:
    """The fault of a kind of the catalogue, capitals or not.

    >>> named("LocalResponseNorm", "neighbours").says
    'the normaliser is taken for a constant: the term across channels is missing'

    Raises: UnknownNameError listing the faults that the subject has; ArgumentError where it has none.
    """
    own = {fault.name: fault for fault in FAULTS if fault.subject.lower() == subject.lower()}
    if not own:
        subjects = ", ".join(dict.fromkeys(fault.subject for fault in FAULTS))
        raise ArgumentError(f"break: there is no fault to plant in {subject}, only in {subjects}")
    if name not in own:
        raise UnknownNameError(f"fault of {next(iter(own.values())).subject}", name, own)
    return own[name]


@contextmanager
def planted(fault: Fault) -> Iterator[None]:
    """Compute with a fault inside a `with` block, by the ops' own bodies, as kernels do not have it.

    It is there for the whole process until the block ends, so nothing else should compute meanwhile.

    Raises: ArgumentError where the file does not hold the correct text exactly once.
    """
    module = import_module(fault.module)
    source = inspect.getsource(module)
    if source.count(fault.correct) != 1:
        raise ArgumentError(f"fault {fault.name}: {fault.correct!r} does not stand in {fault.file} exactly once")
    wrong = dict(_codes(compile(source.replace(fault.correct, fault.wrong), str(module.__file__), "exec")))
    original = {function: function.__code__ for function in _functions(module)}
    try:
        for function, code in original.items():
            function.__code__ = wrong[code.co_qualname]
        with settings(kernels="reference"):
            yield
    finally:
        for function, code in original.items():
            function.__code__ = code


def _codes(code: CodeType) -> Iterator[tuple[str, CodeType]]:
    """The code of each function that stands in a piece of code, by qualified name."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant.co_qualname, constant
            yield from _codes(constant)


def _functions(holder: ModuleType | type) -> Iterator[FunctionType]:
    """The functions and methods that a module defines; of an accelerated op its body."""
    module = holder.__name__ if isinstance(holder, ModuleType) else holder.__module__
    for value in vars(holder).values():
        function = inspect.unwrap(value) if callable(value) else value
        if isinstance(function, FunctionType) and function.__module__ == module:
            yield function
        elif isinstance(function, type) and function.__module__ == module:
            yield from _functions(function)
