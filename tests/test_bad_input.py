"""Careless calls: each public name is called wrongly in at least five ways, and says what is wrong.

The table holds the call, the exception that the docstring promises, and words of its message, which name the argument.
An error from deep inside (an IndexError, say) fails the test, and so does a call that goes through.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy import nan

import minidl
from minidl import (
    Key,
    accelerate,
    arrays,
    catalogue,
    cli,
    data,
    devices,
    gradcheck,
    initializers,
    layers,
    losses,
    models,
    optim,
    random,
    schedules,
    summary,
    training,
    window,
)
from minidl import inference as inference_module
from minidl.data import ArraySplit, Dataset, FileSplit, Loader, Preprocessing, Split, read_image, stratified_split
from minidl.errors import (
    ArgumentError,
    CheckpointError,
    DataError,
    DTypeError,
    FormatError,
    LabelError,
    MinidlError,
    NonFiniteError,
    ShapeError,
    UnknownNameError,
)
from minidl.inference import fuse, inference, lowered
from minidl.initializers import constant, glorot, he, initialize, normal
from minidl.layers import (
    AvgPool2d,
    BatchNorm2d,
    Buffer,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    Layer,
    Linear,
    LocalResponseNorm,
    LogSoftmax,
    MaxPool2d,
    Parameter,
    ReLU,
    Sequential,
    Sigmoid,
    Softmax,
    Sum,
    Tanh,
)
from minidl.losses import Loss, MeanSquaredError, SoftmaxCrossEntropy
from minidl.optim import SGD, AdamW, Optimizer
from minidl.random import philox
from minidl.schedules import Constant, Cosine, Plateau, Schedule, Step, WarmUp
from minidl.summary import draw, summarize
from minidl.training import Config, LoadedRun, configure, load_run, resume, train, train_step
from minidl.training import checkpoint as checkpoints
from minidl.training.checkpoint import keep_checkpoint, load_checkpoint, save_checkpoint
from minidl.window import Window

# A call, which may ask for fixtures by name; what it raises; words of the message.
Line = tuple[Callable[..., Any], type[Exception], str]


def ones(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.ones(shape, dtype)


# --- layers -----------------------------------------------------------------------------------------------------------


def of_any_layer(layer: Layer, shape: tuple[int, ...]) -> list[Line]:
    """What every layer refuses in forward and backward; at this shape it takes an x."""
    x = ones(*shape)
    y, _ = layer.forward(x, train=True, key=Key(0))

    def backward(dy: Any, cache: Any = None) -> Any:
        own = layer.forward(x, train=True, key=Key(0))[1]
        return layer.backward(dy, own if cache is None else cache[0])

    batch = "expected a batch of at least one sample (N, …), none of its axes empty, got"
    return [
        (lambda: layer(None), ArgumentError, "expected a NumPy or CuPy array as x, got NoneType"),
        (lambda: layer([[1.0, 2.0]]), ArgumentError, "expected a NumPy or CuPy array as x, got list"),
        (lambda: layer("x.png"), ArgumentError, "expected a NumPy or CuPy array as x, got str"),
        (lambda: layer(1.0), ArgumentError, "expected a NumPy or CuPy array as x, got float"),
        (lambda: layer(np.ma.array(x)), ArgumentError, "as x, got MaskedArray; np.asarray(x) makes it one"),
        (lambda: layer(np.eye(4).view(np.matrix)), ArgumentError, "as x, got matrix; np.asarray(x) makes it one"),
        (lambda: layer(x.astype(int)), DTypeError, "float64, got int64 in x; convert it with x.astype(np.float32)"),
        (lambda: layer(x.astype("complex64")), DTypeError, "expected float32 or float64, got complex64 in x"),
        (lambda: layer(x.astype("complex128")), DTypeError, "expected float32 or float64, got complex128 in x"),
        (lambda: layer(x.astype("uint8")), DTypeError, "expected float32 or float64, got uint8 in x"),
        (lambda: layer(x.astype(bool)), DTypeError, "expected float32 or float64, got bool in x"),
        (lambda: layer(x.astype(">f4")), DTypeError, "got float32 of foreign byte order in x"),
        (lambda: layer(np.array(1.0)), ShapeError, f"{batch} () in x"),
        (lambda: layer(ones(4)), ShapeError, f"{batch} (4,) in x; a single sample needs a batch axis, x[None]"),
        (lambda: layer(x[:0]), ShapeError, f"{x[:0].shape} in x; a single sample needs a batch axis"),
        (lambda: layer(x[..., :0]), ShapeError, " in x"),
        (lambda: layer.output_shape(8), ShapeError, "shape: expected a tuple of positive sizes"),
        (lambda: layer.output_shape((8, -8, 4)), ShapeError, "shape: expected a tuple of positive sizes"),
        (lambda: layer.output_shape((8.0, 8, 4)), ShapeError, "shape: expected a tuple of positive sizes"),
        (lambda: layer.output_shape(()), ShapeError, "shape: expected a tuple of positive sizes"),
        (lambda: layer.backward(y, None), ArgumentError,
         "forward kept no cache to go back by; run forward(x, train=True"),
        (lambda: backward(y, ["nonsense"]), ArgumentError,
         "expected the cache that its own forward gave, got 'nonsense'"),
        (lambda: backward(y, [(1, 2, '3')]), ArgumentError, "expected the cache that its own forward gave, got (1, 2"),
        (lambda: backward(y, [7]), ArgumentError, "expected the cache that its own forward gave, got 7"),
        (lambda: backward(y.tolist()), ArgumentError, "expected a NumPy or CuPy array as dy, got list"),
        (lambda: backward(None), ArgumentError, "expected a NumPy or CuPy array as dy, got NoneType"),
        (lambda: backward(np.ma.array(y)), ArgumentError, "as dy, got MaskedArray; np.asarray(dy) makes it one"),
        (lambda: backward(np.array(1.0, "float32")), ShapeError, "expected the shape of the output"),
        (lambda: backward(y[:1]), ShapeError, "in dy"),
        (lambda: backward(np.concatenate([y, y], axis=-1)), ShapeError, "in dy"),
        (lambda: backward(y.astype(int)), DTypeError, "got int64 in dy"),
        (lambda: backward(y.astype("complex64")), DTypeError, "got complex64 in dy"),
        (lambda: backward(y.astype(">f4")), DTypeError, "got float32 of foreign byte order in dy"),
    ]  # fmt: skip


# One of each, and an x that it takes.
TAKES: dict[str, tuple[Layer, tuple[int, ...]]] = {
    "Conv2d": (Conv2d(4, 2, 3), (2, 8, 8, 4)),
    "Linear": (Linear(4, 2), (2, 4)),
    "MaxPool2d": (MaxPool2d(2), (2, 8, 8, 4)),
    "AvgPool2d": (AvgPool2d(2), (2, 8, 8, 4)),
    "GlobalAvgPool2d": (GlobalAvgPool2d(), (2, 8, 8, 4)),
    "GlobalMaxPool2d": (GlobalMaxPool2d(), (2, 8, 8, 4)),
    "BatchNorm2d": (BatchNorm2d(4), (2, 8, 8, 4)),
    "LocalResponseNorm": (LocalResponseNorm(), (2, 8, 8, 4)),
    "Dropout": (Dropout(0.25), (2, 8, 8, 4)),
    "Flatten": (Flatten(), (2, 8, 8, 4)),
    "ReLU": (ReLU(), (2, 8, 8, 4)),
    "Sigmoid": (Sigmoid(), (2, 8, 8, 4)),
    "Tanh": (Tanh(), (2, 8, 8, 4)),
    "Softmax": (Softmax(), (2, 8, 8, 4)),
    "LogSoftmax": (LogSoftmax(), (2, 8, 8, 4)),
    "Sequential": (Sequential(a=ReLU(), b=Tanh()), (2, 4)),
    "Sum": (Sum(a=ReLU(), b=Tanh()), (2, 4)),
    "Concat": (Concat(a=ReLU(), b=Tanh()), (2, 4)),
}
BAD: dict[str, list[Line]] = {f"layers.{name}": of_any_layer(*taken) for name, taken in TAKES.items()}


class Forgetful(Layer):
    """A layer of one's own that forgets what it should return."""

    def forward(self, x: Any, *, train: bool = False, key: Key | None = None) -> Any:
        return x if not train else (x, x)

    def backward(self, dy: Any, cache: Any, *, input_gradient: bool = True) -> Any:
        return None


def backward_twice(net: Sequential) -> None:
    y, cache = net.forward(ones(2, 4), train=True)
    net.backward(y, cache)
    net.backward(y, cache)


def lines(subject: str, *added: Line) -> None:
    """Add lines about a subject to the table."""
    BAD.setdefault(subject, []).extend(added)


def each(values: Iterable[Any], call: Callable[..., Any], exception: type[Exception], words: str) -> list[Line]:
    """A line for each value: the first argument of the call, and what the message ends with."""
    return [(partial(call, value), exception, f"{words} {value!r}") for value in values]


positive, pair = "expected a positive integer, got", "expected an integer or two (height, width), got"
# fmt: off
lines("layers.Conv2d",
      (lambda: Conv2d(0, 8, 3), ArgumentError, f"Conv2d: in_channels: {positive} 0"),
      (lambda: Conv2d(-3, 8, 3), ArgumentError, f"Conv2d: in_channels: {positive} -3"),
      (lambda: Conv2d(3, 2.0, 3), ArgumentError, f"Conv2d: out_channels: {positive} 2.0"),
      (lambda: Conv2d(3, "8", 3), ArgumentError, f"Conv2d: out_channels: {positive} '8'"),
      (lambda: Conv2d(3, True, 3), ArgumentError, f"Conv2d: out_channels: {positive} True"),
      (lambda: Conv2d(3, None, 3), ArgumentError, f"Conv2d: out_channels: {positive} None"),
      (lambda: Conv2d(4, 8, 3, groups=0), ArgumentError, f"Conv2d: groups: {positive} 0"),
      (lambda: Conv2d(4, 6, 3, groups=4), ArgumentError,
       "groups: expected a divisor of in_channels=4 and out_channels=6, got 4"),
      (lambda: Conv2d(6, 4, 3, groups=3), ArgumentError,
       "groups: expected a divisor of in_channels=6 and out_channels=4, got 3"),
      (lambda: Conv2d(3, 8, 0), ArgumentError, "kernel_size: expected at least 1, got 0"),
      (lambda: Conv2d(3, 8, (3, 3, 3)), ArgumentError, f"kernel_size: {pair} (3, 3, 3)"),
      (lambda: Conv2d(3, 8, "3"), ArgumentError, f"kernel_size: {pair} '3'"),
      (lambda: Conv2d(3, 8, 3, stride=0.5), ArgumentError, f"stride: {pair} 0.5"),
      (lambda: Conv2d(3, 8, 3, padding="full"), ArgumentError, "padding: expected an integer, (height, width) or"),
      (lambda: Conv2d(3, 8, 3, dilation=None), ArgumentError, f"dilation: {pair} None"),
      (lambda: Conv2d(3, 8, 3, bias="False"), ArgumentError, "Conv2d: bias: expected True or False, got 'False'"),
      (lambda: Conv2d(3, 8, 3, rounding="round"), UnknownNameError, "unknown rounding 'round': Known: floor, ceil"),
      (lambda: Conv2d(96, 256, 5, padding=2, groups=2)(ones(8, 27, 27, 64)), ShapeError,
       "Conv2d(96→256, 5×5, padding=2, groups=2): expected 96 channels, got 64 in x (8, 27, 27, 64)"),
      (lambda: Conv2d(3, 8, 3)(ones(8, 3)), ShapeError,
       "Conv2d(3→8, 3×3): expected the 4 axes (N, H, W, C), got 2 in x (8, 3)"),
      (lambda: Conv2d(3, 8, 5, padding=1)(ones(1, 2, 9, 3)), ShapeError,
       "Conv2d(3→8, 5×5, padding=1): expected a height of at least 3 for a window of 5×5, padding=1, got 2 in x (1, "),
      (lambda: Conv2d(3, 8, 3)(ones(1, 9, 9, 3, dtype="float64")), DTypeError,
       "its weight is float32 but x is float64; convert one: net.to(dtype='float64') or x.astype('float32')"),
      (lambda: Conv2d(3, 8, 3).backward(ones(1, 7, 7, 8), ones(1, 9, 9, 4)), ShapeError,
       "expected 3 channels, got 4 in the cache (1, 9, 9, 4)"))
lines("layers.Linear",
      (lambda: Linear(0, 3), ArgumentError, f"Linear: in_features: {positive} 0"),
      (lambda: Linear(3, "4"), ArgumentError, f"Linear: out_features: {positive} '4'"),
      (lambda: Linear((3,), 4), ArgumentError, f"Linear: in_features: {positive} (3,)"),
      (lambda: Linear(3, nan), ArgumentError, f"Linear: out_features: {positive} nan"),
      (lambda: Linear(3, 4, bias=None), ArgumentError, "Linear: bias: expected True or False, got None"),
      (lambda: Linear(9, 4)(ones(2, 8)), ShapeError, "Linear(9→4): expected 9 features, got 8 in x (2, 8)"),
      (lambda: Linear(9, 4)(ones(2, 3, 3, 1)), ShapeError,
       "Linear(9→4): expected the axes (N, 9); put a Flatten() before it; got 4 axes in x (2, 3, 3, 1)"),
      (lambda: Linear(3, 4)(ones(1, 3, dtype="float64")), DTypeError, "its weight is float32 but x is float64"),
      (lambda: Linear(3, 4).backward(ones(2, 4), ones(2, 5)), ShapeError,
       "expected 3 features, got 5 in the cache (2, 5)"))
def of_any_pool(kind: Any) -> list[Line]:
    return [
        (lambda: kind(0), ArgumentError, "kernel_size: expected at least 1, got 0"),
        (lambda: kind(2.0), ArgumentError, f"kernel_size: {pair} 2.0"),
        (lambda: kind(3, stride=0), ArgumentError, "stride: expected at least 1, got 0"),
        (lambda: kind(3, padding=-1), ArgumentError, "padding: expected at least 0, got"),
        (lambda: kind(3, padding=1.5), ArgumentError, "padding: expected an integer"),
        (lambda: kind(3, dilation=(1, 2, 3)), ArgumentError, f"dilation: {pair} (1, 2, 3)"),
        (lambda: kind(2, rounding="up"), UnknownNameError, "unknown rounding 'up': Known: floor, ceil"),
        (lambda: kind(2, rounding=None), UnknownNameError, "unknown rounding None"),
        (lambda: kind(3, 2)(ones(1, 9, 2, 3)), ShapeError,
         "(3×3, stride=2): expected a width of at least 3 for a window of 3×3, stride=2, got 2 in x (1, 9, 2, 3)"),
        (lambda: kind(2, padding=2)(ones(1, 4, 4, 1)), ShapeError,
         "expected less padding, as a window of 2×2, stride=2, padding=2 sees nothing else, got 4×4 in x (1"),
        (lambda: kind(1, padding=1)(ones(1, 4, 4, 1)), ShapeError,
         "expected less padding, as a window of 1×1, padding=1 sees nothing else, got 4×4 in x (1, 4, 4, 1)"),
        (lambda: kind(2)(ones(4, 4)), ShapeError, "expected the 4 axes (N, H, W, C), got 2 in x (4, 4)"),
    ]  # fmt: skip


for kind in (MaxPool2d, AvgPool2d):
    lines(f"layers.{kind.__name__}", *of_any_pool(kind))
lines("layers.AvgPool2d",
      (lambda: AvgPool2d(2, count_include_pad=0), ArgumentError,
       "AvgPool2d: count_include_pad: expected True or False, got 0"))
for kind in (GlobalAvgPool2d, GlobalMaxPool2d):
    lines(f"layers.{kind.__name__}",
          (partial(kind(), ones(2, 3)), ShapeError, "expected the 4 axes (N, H, W, C), got 2 in x (2, 3)"))
lines("layers.BatchNorm2d",
      (lambda: BatchNorm2d(0), ArgumentError, f"BatchNorm2d: num_features: {positive} 0"),
      (lambda: BatchNorm2d("3"), ArgumentError, f"BatchNorm2d: num_features: {positive} '3'"),
      (lambda: BatchNorm2d(3, eps=0), ArgumentError, "BatchNorm2d: eps: expected a number in (0, inf), got 0"),
      (lambda: BatchNorm2d(3, eps=nan), ArgumentError, "BatchNorm2d: eps: expected a number in (0, inf), got nan"),
      (lambda: BatchNorm2d(3, eps="1e-5"), ArgumentError,
       "BatchNorm2d: eps: expected a number in (0, inf), got '1e-5'"),
      (lambda: BatchNorm2d(3, momentum=1.5), ArgumentError,
       "BatchNorm2d: momentum: expected a number in [0, 1], got 1.5"),
      (lambda: BatchNorm2d(3, momentum=None), ArgumentError,
       "BatchNorm2d: momentum: expected a number in [0, 1], got None"),
      (lambda: BatchNorm2d(3)(ones(2, 4, 4, 5)), ShapeError,
       "BatchNorm2d(3): expected 3 channels, got 5 in x (2, 4, 4, 5)"),
      (lambda: BatchNorm2d(3)(ones(2, 3)), ShapeError,
       "BatchNorm2d(3): expected the 4 axes (N, H, W, C), got 2 in x (2, 3)"),
      (lambda: BatchNorm2d(3)(ones(1, 4, 4, 3, dtype="float64")), DTypeError, "its gamma is float32 but x is float64"),
      (lambda: BatchNorm2d(3).forward(ones(1, 1, 1, 3), train=True), ShapeError,
       "BatchNorm2d(3): expected more than one value a channel to normalise over, got (1, 1, 1, 3) in x"))
lines("layers.LocalResponseNorm",
      (lambda: LocalResponseNorm(size=0), ArgumentError, f"LocalResponseNorm: size: {positive} 0"),
      (lambda: LocalResponseNorm(size=5.0), ArgumentError, f"LocalResponseNorm: size: {positive} 5.0"),
      (lambda: LocalResponseNorm(groups=0), ArgumentError, f"LocalResponseNorm: groups: {positive} 0"),
      (lambda: LocalResponseNorm(k=0), ArgumentError, "LocalResponseNorm: k: expected a number in (0, inf), got 0"),
      (lambda: LocalResponseNorm(alpha=-1), ArgumentError,
       "LocalResponseNorm: alpha: expected a number in [0, inf), got -1"),
      (lambda: LocalResponseNorm(alpha=1j), ArgumentError,
       "LocalResponseNorm: alpha: expected a number in [0, inf), got 1j"),
      (lambda: LocalResponseNorm(beta=nan), ArgumentError,
       "LocalResponseNorm: beta: expected a number in (-inf, inf), got nan"),
      (lambda: LocalResponseNorm(beta=True), ArgumentError,
       "LocalResponseNorm: beta: expected a number in (-inf, inf), got True"),
      (lambda: LocalResponseNorm(average="no"), ArgumentError,
       "LocalResponseNorm: average: expected True or False, got 'no'"),
      (lambda: LocalResponseNorm(groups=2)(ones(1, 2, 2, 3)), ShapeError,
       "expected channels in 2 equal groups, got 3 in x (1, 2, 2, 3)"))
lines("layers.Dropout",
      (lambda: Dropout(1), ArgumentError, "Dropout: p: expected a number in [0, 1), got 1"),
      (lambda: Dropout(-0.1), ArgumentError, "Dropout: p: expected a number in [0, 1), got -0.1"),
      (lambda: Dropout(nan), ArgumentError, "Dropout: p: expected a number in [0, 1), got nan"),
      (lambda: Dropout("half"), ArgumentError, "Dropout: p: expected a number in [0, 1), got 'half'"),
      (lambda: Dropout(False), ArgumentError, "Dropout: p: expected a number in [0, 1), got False"),
      (lambda: Dropout(0.25).forward(ones(2, 3), train=True), ArgumentError,
       "Dropout(0.25): training draws a mask; pass a key: forward(x, train=True, key=Key(seed)); got None"),
      (lambda: Dropout(0.25).forward(ones(2, 3), train=True, key=7), ArgumentError, "key=Key(seed)); got 7"),
      (lambda: Dropout(0.25).backward(ones(2, 3), (7, (2, 3))), ArgumentError,
       "expected the cache that its own forward gave, got (7, "))
def of_any_container(kind: Any) -> list[Line]:
    return [
        (lambda: kind(conv1=3), ArgumentError, ": expected a layer as 'conv1', got 3"),
        (lambda: kind(ReLU), ArgumentError,
         ": expected a layer as '0', got the class ReLU; make one: ReLU(…)"),
        (lambda: kind([ReLU(), Tanh()]), ArgumentError,
         "expected a layer as '0', got [ReLU(), Tanh()]; a list goes in with a star"),
        (lambda: kind(ReLU(), None), ArgumentError, "expected a layer as '1', got None"),
        (lambda: kind(np.tanh), ArgumentError, "expected a layer as '0', got <ufunc 'tanh'>"),
        (lambda: kind(**{"block.conv": ReLU()}), ArgumentError,
         "expected a name without dots, got 'block.conv'"),
        (lambda: kind(**{"": ReLU()}), ArgumentError, "expected a name without dots, got ''"),
        (lambda: kind(ReLU(), **{"0": ReLU()}), ArgumentError,
         "'0' is the name of an unnamed layer; choose another"),
        (lambda: kind(relu=ReLU())["rely"], UnknownNameError, "unknown layer of"),
        (lambda: kind(relu=ReLU())[0], UnknownNameError, "unknown layer of"),
        (lambda: kind(drop=Dropout()).forward(ones(2, 3), train=True, key=7), ArgumentError,
         "key: expected a Key, got 7"),
        (lambda: kind(a=Forgetful())(ones(2, 3)), ArgumentError,
         "a: Forgetful(): expected forward to return two things, y and a cache"),
        (lambda: kind(a=Forgetful(), b=Linear(3, 3)).backward(ones(2, 3), None), ArgumentError,
         "forward kept no cache"),
    ]  # fmt: skip


for kind in (Sequential, Sum, Concat):
    lines(f"layers.{kind.__name__}", *of_any_container(kind))
lines("layers.Sequential",
      (lambda: Sequential()([1.0]), ArgumentError, "expected a NumPy or CuPy array as x, got list"),
      (lambda: Sequential(relu=ReLU()).without("relu1"), UnknownNameError,
       "unknown layer of Sequential of 1 'relu1': did you mean 'relu'"),
      (lambda: backward_twice(Sequential(a=Linear(4, 4), b=ReLU())), ArgumentError,
       "Sequential of 2: expected a cache of 2 layers, got 0; "
       "backward uses a cache up: run forward(x, train=True, key=…) again with the same key"),
      (lambda: Sequential(ReLU(), Tanh()).backward(ones(2, 4), [ones(2, 4)]), ArgumentError,
       "expected a cache of 2 layers, got 1"),
      (lambda: Sequential(fc=Linear(4, 4), own=Forgetful()).backward(ones(2, 4), [ones(2, 4)] * 2), ArgumentError,
       "own: Forgetful(): expected backward to return dx, got None"),
      (lambda: Sequential(a=Conv2d(3, 4, 3), b=Conv2d(5, 4, 3))(ones(1, 9, 9, 3)), ShapeError,
       "b: Conv2d(5→4, 3×3): expected 5 channels, got 4 in x (1, 7, 7, 4)"))
lines("layers.Sum",
      (lambda: Sum(), ArgumentError, "Sum: expected at least one branch, got none"),
      (lambda: Sum(a=ReLU(), b=Conv2d(2, 3, 1))(ones(1, 4, 4, 2)), ShapeError,
       "Sum of 2: expected branches of equal output shapes, got a (1, 4, 4, 2), b (1, 4, 4, 3)"),
      (lambda: Sum(a=ReLU(), b=Conv2d(2, 3, 1)).output_shape((4, 4, 2)), ShapeError,
       "expected branches of equal output shapes, got a (4, 4, 2)"))
lines("layers.Concat",
      (lambda: Concat(), ArgumentError, "Concat: expected at least one branch, got none"),
      (lambda: Concat(a=ReLU(), b=MaxPool2d(2))(ones(1, 4, 4, 2)), ShapeError,
       "Concat of 2: expected branches that differ in channels only, got a (1, 4, 4, 2), b (1, 2, 2, 2)"),
      (lambda: Concat(a=ReLU(), b=MaxPool2d(2)).output_shape((4, 4, 2)), ShapeError,
       "expected branches that differ in channels only, got a"))

net = Sequential(fc=Linear(2, 3))
state = net.state_dict()
lines("layers.Layer",
      (lambda: net.to("gpu"), ArgumentError, "device: expected 'cpu', 'cuda' or 'cuda:N', got 'gpu'"),
      (lambda: net.to(0), ArgumentError, "device: expected 'cpu', 'cuda' or 'cuda:N', got 0"),
      (lambda: net.to(dtype="complex64"), DTypeError, "dtype: expected one of float32, float64,"),
      (lambda: net.to(dtype="flaot32"), DTypeError, "dtype: expected one of float32, float64,"),
      (lambda: net.to(dtype=">f4"), DTypeError, "dtype: expected one of float32, float64,"),
      (lambda: net.load_state_dict([1, 2]), ArgumentError,
       "state: expected arrays by name, as state_dict() gives them, got [1, 2]"),
      (lambda: net.load_state_dict({}), CheckpointError, "the weights belong to another model: fc.weight is missing"),
      (lambda: net.load_state_dict({**state, "fc2.bias": ones(3)}), CheckpointError,
       "another model: fc2.bias is unexpected"),
      (lambda: net.load_state_dict({**state, "fc.bias": ones(2)}), CheckpointError,
       "another model: fc.bias has shape (2,) instead of (3,)"),
      (lambda: net.load_state_dict({**state, "fc.bias": [0.0] * 3}), CheckpointError,
       "another model: fc.bias is [0.0, 0.0, 0.0], not an array of floats"),
      (lambda: net.load_state_dict({**state, "fc.bias": ones(3, dtype="complex64")}), CheckpointError,
       "another model: fc.bias is ndarray of complex64"),
      (lambda: Forgetful()(ones(2, 2)), ArgumentError,
       "Forgetful(): expected forward to return two things, y and a cache"))
parameter = Parameter(ones(2))
lines("layers.Parameter",
      (lambda: Parameter([1.0]), ArgumentError, "value: expected a plain NumPy or CuPy array, got [1.0]"),
      (lambda: Parameter(None), ArgumentError, "value: expected a plain NumPy or CuPy array, got None"),
      (lambda: Parameter(ones(2, dtype="int64")), DTypeError,
       "value: expected an array of float32 or float64, got ndarray of int64"),
      (lambda: Parameter(ones(2, dtype="complex64")), DTypeError,
       "value: expected an array of float32 or float64, got ndarray of complex64"),
      (lambda: Parameter(ones(2, dtype=">f8")), DTypeError,
       "value: expected an array of float32 or float64, got ndarray of >f8"),
      (lambda: Parameter.drawn(3, lambda: ones(3)), ShapeError, "shape: expected a tuple of positive sizes, got 3"),
      (lambda: Parameter.drawn((3,), ones(3)), ArgumentError, "draw: expected a function that gives the first value"),
      (lambda: Parameter.drawn((3,), lambda: ones(4)).value, ShapeError,
       "a parameter of shape (3,) cannot take a value of shape (4,)"),
      (lambda: setattr(parameter, "value", ones(3)), ShapeError,
       "a parameter of shape (2,) cannot take a value of shape (3,)"),
      (lambda: setattr(parameter, "value", 3.0), ArgumentError, "value: expected a plain NumPy or CuPy array, got 3.0"),
      (lambda: parameter.accumulate(ones(3)), ShapeError, "a parameter of shape (2,) got a gradient of shape (3,)"),
      (lambda: parameter.accumulate([1.0, 2.0]), ArgumentError,
       "gradient: expected a plain NumPy or CuPy array, got [1.0, 2.0]"),
      (lambda: parameter.accumulate(ones(2, dtype="float64")), DTypeError,
       "a parameter of float32 got a gradient of float64"))
lines("layers.Buffer",
      *((lambda value=value: Buffer(value), ArgumentError, "value: expected a plain NumPy or CuPy array, got")
        for value in ([1.0], None, 3.0, "mean", np.ma.zeros(3))),
      (lambda: Buffer(ones(2, dtype="int64")), DTypeError,
       "value: expected an array of float32 or float64, got ndarray of int64"))

# --- losses -----------------------------------------------------------------------------------------------------------

CE, MSE = SoftmaxCrossEntropy, MeanSquaredError
logits, labels = ones(2, 3), np.array([0, 2])


def gradient_of(loss: Loss, targets: Any, **options: Any) -> Any:
    return loss.backward(loss.forward(ones(2, 3), targets)[1], **options)


lines("losses.SoftmaxCrossEntropy",
      (lambda: CE(label_smoothing=-0.1), ArgumentError,
       "SoftmaxCrossEntropy: label_smoothing: expected a number in [0, 1], got -0.1"),
      (lambda: CE(label_smoothing=1.1), ArgumentError,
       "SoftmaxCrossEntropy: label_smoothing: expected a number in [0, 1], got 1.1"),
      (lambda: CE(label_smoothing="0"), ArgumentError,
       "SoftmaxCrossEntropy: label_smoothing: expected a number in [0, 1], got '0'"),
      (lambda: CE([1, -1]), ArgumentError, "weight: expected one number ≥ 0 for each class, got [1, -1]"),
      (lambda: CE([[1.0, 2.0]]), ArgumentError, "weight: expected one number ≥ 0 for each class, got [[1.0, 2.0]]"),
      (lambda: CE([1, nan]), ArgumentError, "weight: expected one number ≥ 0 for each class, got [1, nan]"),
      (lambda: CE([1, np.inf]), ArgumentError, "weight: expected one number ≥ 0 for each class, got [1, inf]"),
      (lambda: CE(2.0), ArgumentError, "weight: expected one number ≥ 0 for each class, got 2.0"),
      (lambda: CE("balanced"), ArgumentError, "weight: expected an array or lists of numbers, got 'balanced'"),
      (lambda: CE({0: 1.0}), ArgumentError, "weight: expected an array or lists of numbers, got {0: 1.0}"),
      (lambda: CE(ignore_index=None), ArgumentError, "SoftmaxCrossEntropy: ignore_index: expected an integer"),
      (lambda: CE(ignore_index=1.5), ArgumentError, "SoftmaxCrossEntropy: ignore_index: expected an integer"),
      (lambda: CE(reduction="meen"), UnknownNameError,
       "unknown reduction of SoftmaxCrossEntropy 'meen': did you mean 'mean'"),
      (lambda: CE(reduction=["mean"]), UnknownNameError, "unknown reduction of SoftmaxCrossEntropy ['mean']"),
      (lambda: CE([1, 2]).forward(logits, labels), ShapeError, "weight: expected 3 numbers, one a class, got 2"),
      (lambda: CE().forward(logits, [0, 3]), LabelError,
       "SoftmaxCrossEntropy(): expected labels from 0 to 2, got 3 at position 1"),
      (lambda: CE().forward(logits, [-1, 0]), LabelError,
       "SoftmaxCrossEntropy(): expected labels from 0 to 2, got -1 at position 0"),
      (lambda: CE().forward(ones(2, 2, 3), [[0, 1], [7, 8]]), LabelError,
       "expected labels from 0 to 2, got 7 at position (1, 0)"),
      (lambda: CE().forward(logits, [0.0, 1.0]), LabelError,
       "SoftmaxCrossEntropy(): expected integer labels, got float64"),
      (lambda: CE().forward(logits, [True, False]), LabelError,
       "SoftmaxCrossEntropy(): expected integer labels, got bool"),
      (lambda: CE().forward(logits, ["cat", "dog"]), LabelError,
       "SoftmaxCrossEntropy(): expected integer labels, got str"),
      (lambda: CE().forward(logits, np.ma.array(labels)), ArgumentError,
       "labels: expected an array or lists of numbers, got MaskedArray"),
      (lambda: CE().forward(logits, None), ArgumentError,
       "SoftmaxCrossEntropy(): labels: expected an array or lists of numbers, got None"),
      (lambda: CE().forward(logits, [[0], [1, 2]]), ArgumentError,
       "labels: expected rows of equal length, got [[0], [1, 2]]"),
      (lambda: CE().forward(logits, [0, 1, 2]), ShapeError,
       "expected labels of shape (2,) for logits (2, 3), got (3,)"),
      (lambda: CE().forward(logits, [[1, 0, 0], [0, 1, 0]]), ShapeError,
       "expected labels of shape (2,) for logits (2, 3), got (2, 3)"),
      (lambda: CE().forward(ones(2, 3, dtype="int64"), labels), DTypeError,
       "expected logits of float32 or float64, got int64"),
      (lambda: CE().forward(ones(2, 3, dtype=">f4"), labels), DTypeError,
       "expected logits of float32 or float64, got float32 of foreign"),
      (lambda: CE().forward([[0.0, 1.0]], labels), DTypeError, "expected logits of float32 or float64, got list"),
      (lambda: CE().forward(ones(3), labels), ShapeError,
       "expected logits of shape (N, …, C), none of them 0, got (3,)"),
      (lambda: CE().forward(ones(0, 3), []), ShapeError,
       "expected logits of shape (N, …, C), none of them 0, got (0, 3)"),
      (lambda: CE().backward(None), ArgumentError,
       "SoftmaxCrossEntropy(): expected the cache that its own forward gave, got None"),
      (lambda: CE().backward(MSE().forward(logits, logits)[1]), ArgumentError,
       "expected the cache that its own forward gave"),
      (lambda: gradient_of(CE(), labels, scale="2"), ArgumentError,
       "scale: expected a number, or an array of shape (2,), got '2'"),
      (lambda: gradient_of(CE(), labels, scale=ones(3)), ArgumentError,
       "scale: expected a number, or an array of shape (2,), got"),
      (lambda: gradient_of(CE(), labels, scale=1j), ArgumentError, "scale: expected"))
lines("losses.MeanSquaredError",
      (lambda: MSE("meen"), UnknownNameError, "unknown reduction of MeanSquaredError 'meen': did you mean 'mean'"),
      (lambda: MSE(3), UnknownNameError, "unknown reduction of MeanSquaredError 3"),
      (lambda: MSE().forward(logits, ones(2, 1)), ShapeError,
       "expected targets of shape (2, 3), not empty, got (2, 1)"),
      (lambda: MSE().forward(ones(0, 3), ones(0, 3)), ShapeError,
       "expected targets of shape (0, 3), not empty, got (0, 3)"),
      (lambda: MSE().forward(logits, ones(2, 3, dtype="float64")), DTypeError,
       "expected targets of float32, got float64"),
      (lambda: MSE().forward(logits, ones(2, 3, dtype="int64")), DTypeError, "expected targets of float32, got int64"),
      (lambda: MSE().forward(logits, None), ArgumentError,
       "MeanSquaredError(): targets: expected an array or lists of numbers, got None"),
      (lambda: MSE().forward(logits, np.ma.array(logits)), ArgumentError,
       "targets: expected an array or lists of numbers, got MaskedArray"),
      (lambda: MSE().forward(logits, [[1.0], [1.0, 2.0]]), ArgumentError, "targets: expected rows of equal length"),
      (lambda: MSE().forward(ones(3, dtype="int64"), ones(3)), DTypeError,
       "expected outputs of float32 or float64, got int64"),
      (lambda: MSE().forward(2.5, 2.5), DTypeError, "expected outputs of float32 or float64, got float"),
      (lambda: MSE().backward([ones(2, 3), 1.0]), ArgumentError, "expected the cache that its own forward gave"),
      (lambda: MSE().backward(CE().forward(logits, labels)[1]), ArgumentError,
       "expected the cache that its own forward gave"),
      (lambda: gradient_of(MSE(), ones(2, 3), scale=None), ArgumentError,
       "scale: expected a number, or an array of shape (2, 3), got None"),
      (lambda: gradient_of(MSE("none"), ones(2, 3), scale=ones(2)), ArgumentError,
       "scale: expected a number, or an array of shape (2, 3)"))

# --- optimisers, schedules, first values ------------------------------------------------------------------------------


def weights() -> dict[str, Parameter]:
    return {"fc.weight": Parameter(ones(2, 2)), "fc.bias": Parameter(ones(2))}


def step(kind: type[Optimizer], lr: Any, grad: Any = ..., **options: Any) -> None:
    own = weights()
    for value in own.values():
        value.grad = ones(*value.shape)
    if grad is not ...:
        own["fc.bias"].grad = grad
    kind(own, **options).step(lr)


def of_any_optimizer(kind: type[Optimizer]) -> list[Line]:
    name, rate, twin = kind.__name__, "expected a number in [0, inf), got", Parameter(ones(2))
    def make(parameters: Any, weight_decay: Any = 0.0, **options: Any) -> Optimizer:
        if kind is Optimizer:  # which has no defaults
            options = {"lr_multipliers": None, "decay_multipliers": None, **options}
        return kind(parameters, weight_decay=weight_decay, **options)

    lines: list[Line] = [
        (lambda: make([Parameter(ones(2))]), ArgumentError,
         f"{name}: parameters: expected names and parameters, as net.parameters() gives them, got list"),
        (lambda: make(None), ArgumentError,
         f"{name}: parameters: expected names and parameters, as net.parameters() gives them, got NoneType"),
        (lambda: make({}), ArgumentError, f"{name}: parameters: expected at least one, got none"),
        (lambda: make({"w": ones(2)}), ArgumentError,
         f"{name}: parameters: 'w': expected a Parameter, got ndarray of float32, (2,)"),
        (lambda: make({"a": twin, "b": twin}), ArgumentError,
         f"{name}: parameters: 'a' and 'b' are one parameter, which would be changed twice"),
        (lambda: make(weights(), weight_decay=-1), ArgumentError, f"{name}: weight_decay: {rate} -1"),
        (lambda: make(weights(), weight_decay=nan), ArgumentError, f"{name}: weight_decay: {rate} nan"),
        (lambda: make(weights(), weight_decay="5e-4"), ArgumentError, f"{name}: weight_decay: {rate} '5e-4'"),
        (lambda: make(weights(), lr_multipliers={"*.baas": 2.0}), ArgumentError,
         f"{name}: lr_multipliers: the pattern '*.baas' matches none of the parameters fc.weight, fc.bias"),
        (lambda: make(weights(), lr_multipliers={"*": "2"}), ArgumentError,
         f"{name}: lr_multipliers: fc.weight: {rate} '2'"),
        (lambda: make(weights(), lr_multipliers={"*.bias": -1}), ArgumentError,
         f"{name}: lr_multipliers: fc.bias: {rate} -1"),
        (lambda: make(weights(), lr_multipliers=[2.0]), ArgumentError,
         f"{name}: lr_multipliers: expected a table from patterns of names"),
    ]  # fmt: skip
    if kind is not Optimizer:
        lines += [
            *each((-0.1, nan, np.inf, "0.1", None, True), lambda lr: step(kind, lr),
                  ArgumentError, f"{name}: lr: {rate}"),
            (lambda: make(weights()).step(0.1), ArgumentError,
             f"{name}: no parameter has a gradient; run backward before the step"),
            (lambda: step(kind, 0.1, ones(3)), ShapeError,
             f"{name}: the gradient of fc.bias: expected shape (2,), got (3,)"),
            (lambda: step(kind, 0.1, ones(2, 1)), ShapeError,
             f"{name}: the gradient of fc.bias: expected shape (2,), got (2, 1)"),
            (lambda: step(kind, 0.1, ones(2, dtype="float64")), DTypeError,
             "the gradient of fc.bias: expected float32, got float64"),
            (lambda: step(kind, 0.1, [1.0, 2.0]), ShapeError, "the gradient of fc.bias: expected shape (2,), got list"),
            (lambda: make(weights(), decay_multipliers={"*.baas": 2.0}), ArgumentError,
             "decay_multipliers: the pattern '*.baas' matches none"),
            (lambda: make(weights(), decay_multipliers={3: 2.0}), ArgumentError,
             "decay_multipliers: expected a table from patterns of names"),
            (lambda: make(weights()).load_state_dict([1]), ArgumentError,
             f"{name}: state: expected arrays by name, got [1]"),
            (lambda: make(weights()).load_state_dict({"speed.fc.bias": ones(2)}), CheckpointError,
             "'speed.fc.bias' is no part of its state"),
            (lambda: make(weights()).load_state_dict({"updates.fc.bias": 3}), CheckpointError,
             "updates.fc.bias is 3, which does not fit"),
            (lambda: make(weights()).load_state_dict({"updates.fc.bias": np.array(2.5)}), CheckpointError,
             "updates.fc.bias is array(2.5), which"),
            (lambda: make(weights()).load_state_dict({f"{kind.slots[0]}.fc.bias": ones(3)}), CheckpointError,
             ".fc.bias has shape (3,), expected (2,)"),
            (lambda: make(weights()).load_state_dict({f"{kind.slots[0]}.fc.bias": ones(2)}), CheckpointError,
             "the state has no 'updates.fc.bias'"),
        ]  # fmt: skip
    return lines


for kind in (Optimizer, SGD, AdamW):
    lines(f"optim.{kind.__name__}", *of_any_optimizer(kind))
lines("optim.SGD",
      (lambda: SGD(weights(), momentum=1), ArgumentError, "SGD: momentum: expected a number in [0, 1), got 1"),
      (lambda: SGD(weights(), momentum=-0.1), ArgumentError, "SGD: momentum: expected a number in [0, 1), got -0.1"),
      (lambda: SGD(weights(), momentum=None), ArgumentError, "SGD: momentum: expected a number in [0, 1), got None"),
      (lambda: SGD(weights(), nesterov="yes"), ArgumentError, "SGD: nesterov: expected True or False, got 'yes'"),
      (lambda: SGD(weights(), momentum=0, nesterov=True), ArgumentError,
       "SGD: nesterov: expected momentum > 0 with it, got 0"),
      (lambda: SGD(weights(), update="pytorch"), UnknownNameError,
       "unknown update rule of SGD 'pytorch': did you mean 'torch'"),
      (lambda: SGD(weights(), update=None), UnknownNameError, "unknown update rule of SGD None"))
lines("optim.AdamW",
      (lambda: AdamW(weights(), betas=(0.9, 1.0)), ArgumentError, "AdamW: betas: expected a number in [0, 1), got 1.0"),
      (lambda: AdamW(weights(), betas=0.9), ArgumentError, "AdamW: betas: expected two numbers, got 0.9"),
      (lambda: AdamW(weights(), betas=(0.9, 0.99, 0.999)), ArgumentError,
       "AdamW: betas: expected two numbers, got (0.9, 0.99, 0.999)"),
      (lambda: AdamW(weights(), betas=("a", "b")), ArgumentError, "AdamW: betas: expected a number in [0, 1), got 'a'"),
      (lambda: AdamW(weights(), eps=0), ArgumentError, "AdamW: eps: expected a number in (0, inf), got 0"))

of_schedules: dict[str, Callable[[Any], Schedule]] = {
    "Schedule": Schedule, "Constant": Constant, "Step": lambda lr: Step(lr, 3), "Cosine": lambda lr: Cosine(lr, 3),
    "Plateau": Plateau, "WarmUp": lambda lr: WarmUp(lr, Constant(0.1), 3),
}
def of_any_schedule(name: str, make: Callable[[Any], Schedule]) -> list[Line]:
    return [
        *each((-0.1, nan, np.inf, "0.1", None), lambda lr, : make(lr),
              ArgumentError, f"{name}: base_lr: expected a number in [0, inf), got"),
        *each((-1, 2.5, "3", None), lambda at, : make(0.1).lr(at),
              ArgumentError, ": step: expected an integer of at least 0, got"),
        (lambda: make(0.1).observed(-1, 0.5), ArgumentError,
         ": step: expected an integer of at least 0, got -1"),
        (lambda: make(0.1).observed(3, "bad"), ArgumentError, ": error: expected a number, got 'bad'"),
    ]  # fmt: skip


for name, make in of_schedules.items():
    lines(f"schedules.{name}", *of_any_schedule(name, make))
lines("schedules.Step",
      (lambda: Step(0.1, 0), ArgumentError, f"Step: step_size: {positive} 0"),
      (lambda: Step(0.1, 2.5), ArgumentError, f"Step: step_size: {positive} 2.5"),
      (lambda: Step(0.1, 3, gamma=-0.1), ArgumentError, "Step: gamma: expected a number in [0, 1], got -0.1"),
      (lambda: Step(0.1, 3, gamma=10), ArgumentError, "Step: gamma: expected a number in [0, 1], got 10"))
lines("schedules.Cosine",
      (lambda: Cosine(0.1, 2.5), ArgumentError, f"Cosine: steps: {positive} 2.5"),
      (lambda: Cosine(0.1, -3), ArgumentError, f"Cosine: steps: {positive} -3"),
      (lambda: Cosine(0.1, 3, final_lr=-1), ArgumentError, "Cosine: final_lr: expected a number in [0, inf), got -1"),
      (lambda: Cosine(0.1, 3, final_lr=nan), ArgumentError, "Cosine: final_lr: expected a number in [0, inf), got nan"))
lines("schedules.Plateau",
      (lambda: Plateau(0.1, patience=0), ArgumentError, f"Plateau: patience: {positive} 0"),
      (lambda: Plateau(0.1, gamma="0.1"), ArgumentError, "Plateau: gamma: expected a number in [0, 1], got '0.1'"),
      (lambda: Plateau(0.1, drops=-1), ArgumentError, "Plateau: drops: expected an integer of at least 0, got -1"),
      (lambda: Plateau(0.1).observed(20, 0.5).observed(10, 0.4), ArgumentError,
       "Plateau: step: expected at least 20, that of the last, got 10"))
lines("schedules.WarmUp",
      (lambda: WarmUp.before(Constant(0.1), 0), ArgumentError, f"WarmUp: steps: {positive} 0"),
      (lambda: WarmUp.before(0.1, 3), ArgumentError, "WarmUp: after: expected a Schedule, got 0.1"),
      (lambda: WarmUp.before(Constant, 3), ArgumentError,
       "WarmUp: after: expected a Schedule, got the class Constant; make one: Constant(…)"),
      (lambda: WarmUp(0.1, None, 3), ArgumentError, "WarmUp: after: expected a Schedule, got None"),
      (lambda: WarmUp(0.5, Constant(0.1), 3), ArgumentError, "WarmUp: base_lr: expected 0.1, that of after, got 0.5"))

drawing = np.random.default_rng(0)
lines("initializers.normal",
      *each((-1, nan, "0.01", None), normal,
            ArgumentError, "normal: std: expected a number in [0, inf), got"),
      (lambda: normal(0.1)((2, 2), 0), ArgumentError, "normal: generator: expected a Generator, got 0"),
      (lambda: normal(0.1)("ab", drawing), ShapeError, "shape: expected a tuple of positive sizes, got 'ab'"))
lines("initializers.constant",
      *each((nan, "1", None, [1.0], np.inf), constant,
            ArgumentError, "constant: value: expected a number in (-inf, inf), got"),
      (lambda: constant(1)((2, -2), drawing), ShapeError, "shape: expected a tuple of positive sizes, got (2, -2)"))
def of_any_drawing(draw_first: Callable[..., Any]) -> list[Line]:
    return [
        *each((5, "ab", (), (3, 0), (2.0, 3)), lambda shape, : draw_first(shape, drawing),
              ShapeError, "shape: expected a tuple of positive sizes, got"),
        (lambda: draw_first((64,), drawing), ShapeError,
         "shape: expected at least two axes, (…, inputs, outputs), got (64,)"),
    ]  # fmt: skip


for name, draw_first in ("he", he), ("glorot", glorot), ("fans", lambda shape, _: initializers.fans(shape)):
    lines(f"initializers.{name}", *of_any_drawing(draw_first))
lines("initializers.he", (lambda: he((2, 2), Key(0)), ArgumentError,
"generator: expected a Generator, got Key(seed=0, sample=0)"))
lines("initializers.glorot", (lambda: glorot((2, 2), None), ArgumentError,
"glorot: generator: expected a Generator, got None"))
fc = {"*weight": he}
lines("initializers.initialize",
      (lambda: initialize(Linear, fc, Key(0)), ArgumentError,
       "initialize: layer: expected a Layer, got the class Linear; make one: Linear(…)"),
      (lambda: initialize(None, fc, Key(0)), ArgumentError, "initialize: layer: expected a Layer, got None"),
      (lambda: initialize(net, fc, 0), ArgumentError, "initialize: key: expected a Key, got 0"),
      (lambda: initialize(net, "he", Key(0)), ArgumentError,
       "init: expected a table from patterns of names, such as '*.bias', got 'he'"),
      (lambda: initialize(net, {"*.baas": he}, Key(0)), ArgumentError,
       "init: the pattern '*.baas' matches none of the parameters fc.weight, fc.bias"),
      (lambda: initialize(Sequential(), {"*": he}, Key(0)), ArgumentError,
       "init: the pattern '*' matches none of the parameters (none)"),
      (lambda: initialize(net, {"*": 0.1}, Key(0)), ArgumentError,
       "init: fc.weight: expected an initialiser, such as normal(0.01), got 0.1"),
      (lambda: initialize(net, {"*": he}, Key(0)), ShapeError, "fc.bias: shape: expected at least two axes"),
      (lambda: initialize(net, {"*": lambda shape, generator: ones(7)}, Key(0)), ShapeError,
       "fc.weight: a parameter of shape (2, 3) cannot take a value of shape (7,)"),
      (lambda: initialize(net, {"*": lambda shape, generator: 0.0}, Key(0)), ArgumentError,
       "fc.weight: the first value: expected a plain"))
# fmt: on


# --- windows, keys, arrays, settings ----------------------------------------------------------------------------------


def enter(**changes: Any) -> None:
    with minidl.settings(**changes):
        pass


# fmt: off
lines("window.Window",
      (lambda: Window.of(0), ArgumentError, "kernel_size: expected at least 1, got 0"),
      (lambda: Window.of((3, 0)), ArgumentError, "kernel_size: expected at least 1, got (3, 0)"),
      (lambda: Window.of((3, 3, 3)), ArgumentError, f"kernel_size: {pair} (3, 3, 3)"),
      (lambda: Window.of((3, 2.0)), ArgumentError, f"kernel_size: {pair} (3, 2.0)"),
      (lambda: Window.of(True), ArgumentError, f"kernel_size: {pair} True"),
      (lambda: Window.of(None), ArgumentError, f"kernel_size: {pair} None"),
      (lambda: Window.of(np.array([3, 3])), ArgumentError, f"kernel_size: {pair} ndarray of int64, (2,)"),
      (lambda: Window.of(3, stride=0), ArgumentError, "stride: expected at least 1, got 0"),
      (lambda: Window.of(3, stride=1.0), ArgumentError, f"stride: {pair} 1.0"),
      (lambda: Window.of(3, dilation=0), ArgumentError, "dilation: expected at least 1, got 0"),
      (lambda: Window.of(3, padding=-1), ArgumentError, "padding: expected at least 0, got"),
      (lambda: Window.of(3, padding=(1, 2, 3)), ArgumentError,
       "padding: expected an integer, (height, width) or ((top,"),
      (lambda: Window.of(3, padding="some"), ArgumentError, "padding: expected an integer, (height, width) or ((top,"),
      (lambda: Window.of(3, padding=1.0), ArgumentError, "padding: expected an integer, (height, width) or ((top,"),
      (lambda: Window.of(3, padding=(1.0, 1.0)), ArgumentError, f"padding: {pair} 1.0"),
      (lambda: Window.of(3, padding=np.array([1, 1])), ArgumentError,
       "padding: expected an integer, (height, width) or ((top,"),
      (lambda: Window.of(3, stride=2, padding="same"), ArgumentError, 'padding: "same" takes stride 1, got stride=2'),
      (lambda: Window.of(3, rounding="cei"), UnknownNameError, "unknown rounding 'cei': did you mean 'ceil'"),
      (lambda: Window(3), ArgumentError, "Window: expected pairs as kernel, stride, padding and dilation, got (3, "),
      (lambda: Window((3, 3), padding=(1, 1)), ArgumentError,
       "Window: expected pairs as kernel, stride, padding and dilation"),
      (lambda: Window((3, 3), rounding="up"), UnknownNameError, "unknown rounding 'up'"),
      (lambda: Window.of(5).output_size(4, 9), ShapeError,
       "expected a height of at least 5 for a window of 5×5, got 4"),
      (lambda: Window.of(5).output_size(9, 4), ShapeError, "expected a width of at least 5 for a window"),
      (lambda: Window.of(5, padding=9).output_size(-4, 9), ShapeError, "expected a positive integer as height, got -4"),
      (lambda: Window.of(5).output_size(9, 9.0), ShapeError, "expected a positive integer as width, got 9.0"))
for subject in ("minidl.Key", "random.Key"):
    lines(subject,
          *each((-1, 1 << 64, 1.0, "1", None, True, nan), Key,
                ArgumentError, "seed: expected an integer from 0 to 2**64 - 1, got"),
          (lambda: Key(0, sample=1 << 32), ArgumentError,
           "sample: expected an integer from 0 to 2**32 - 1, got 4294967296"),
          (lambda: Key(0, sample=-1), ArgumentError, "sample: expected an integer from 0 to 2**32 - 1, got -1"),
          *each((-1, 1 << 64, 1.0, None, b"fc6", False), lambda place: Key(0).at(place),
                ArgumentError, "place: expected an integer from 0 to 2**64 - 1, got"))
lines("random.philox",
      (lambda: philox((0, 0, 0), (0, 0)), ArgumentError, "counter: expected a tuple of 4 words, got (0, 0, 0)"),
      (lambda: philox([0, 0, 0, 0], (0, 0)), ArgumentError, "counter: expected a tuple of 4 words, got [0, 0, 0, 0]"),
      (lambda: philox((0, 0, 0, -1), (0, 0)), ArgumentError,
       "counter: expected an integer from 0 to 2**32 - 1, got -1"),
      (lambda: philox((0, 0, 0, np.arange(3)), (0, 0)), ArgumentError,
       "counter: expected an integer from 0 to 2**32 - 1, got ndarray of int64"),
      (lambda: philox((0, 0, 0, 0), 7), ArgumentError, "key: expected a tuple of 2 words, got 7"),
      (lambda: philox((0, 0, 0, 0), (0, 1 << 32)), ArgumentError,
       "key: expected an integer from 0 to 2**32 - 1, got 4294967296"))
lines("arrays.float_dtype",
      *each(("flaot32", None, [3]), arrays.float_dtype, DTypeError,
            "dtype: expected one of float32, float64, float16, bfloat16, got"),
      (lambda: arrays.float_dtype(int), DTypeError, "dtype: expected one of float32, float64,"),
      (lambda: arrays.float_dtype(">f8"), DTypeError,
       "dtype: expected one of float32, float64, float16, bfloat16, got >f8 of foreign bytes"))
for asked in (devices.parse_device, devices.device_name, lambda device: devices.using(device).__enter__()):
    lines(f"devices.{getattr(asked, '__name__', '').replace('<lambda>', 'using')}",
          *each(("gpu", "cuda:", "cuda:-1", "CPU", 0, None, ""), asked,
                ArgumentError, "device: expected 'cpu', 'cuda' or 'cuda:N', got"))
for asked in (arrays.device_of, arrays.to_host, partial(arrays.to_device, device="cpu")):
    name = getattr(asked, "func", asked).__name__
    lines(f"arrays.{name}",
          *each(([1.0], None, "cpu", 3.0), asked, ArgumentError, "x: expected a plain NumPy or CuPy array, got"),
          (partial(asked, np.ma.zeros(3)), ArgumentError, "x: expected a plain NumPy or CuPy array, got MaskedArray"))
lines("arrays.to_device", (lambda: arrays.to_device(ones(2), "tpu"), ArgumentError,
"device: expected 'cpu', 'cuda' or 'cuda:N', got 'tpu'"))
wrong_kernels: tuple[Any, ...] = ("numbo", "", None, 1, True, ["auto"])
for subject in ("minidl.settings", "accelerate.settings"):
    lines(subject,
          *each(wrong_kernels, lambda value: enter(kernels=value), UnknownNameError, "unknown setting for kernels"),
          (lambda: enter(kernel="numba"), UnknownNameError, "unknown setting 'kernel': did you mean 'kernels'"))
lines("accelerate.Settings", *each(wrong_kernels, accelerate.Settings, UnknownNameError, "unknown setting for kernels"))
def threads(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    monkeypatch.setenv("MINIDL_NUM_THREADS", wanted)
    accelerate.num_threads()


for subject in "accelerate.num_threads", "minidl.num_threads":
    lines(subject, *each(("0", "-2", "two", "1.5", " "), lambda wanted, monkeypatch: threads(monkeypatch, wanted),
            ArgumentError, "MINIDL_NUM_THREADS: expected a positive integer, got"))

for name, make in (
    ("inference.fuse", fuse),
    ("inference.inference", inference),
    ("inference.lowered", lambda net: lowered(net, "float32")),
):
    lines(name, *each(("alexnet", None, 3, 1.5, {}), make, ArgumentError, "net: expected a Layer, got"))
for subject in "accelerate.set_num_threads", "minidl.set_num_threads":
    lines(subject, *each((0, -1, 1.5, "two", None, True), accelerate.set_num_threads,
                         ArgumentError, "set_num_threads: n: expected a positive integer, got"))

# --- checks, summaries, models ----------------------------------------------------------------------------------------

relu = ReLU()
def of_any_check(asked: Callable[..., Any]) -> list[Line]:
    return [
        (lambda: asked(ReLU, (2, 3)), ArgumentError, "a class needs to be called"),
        (lambda: asked(np.tanh, (2, 3)), ArgumentError, "expected a layer, a net or a loss"),
        (lambda: asked(relu), ArgumentError, "ReLU(): expected one input, x or its shape, got 0"),
        (lambda: asked(relu, (2, 3), (2, 3)), ArgumentError,
         "ReLU(): expected one input, x or its shape, got 2"),
        (lambda: asked(MSE(), (2, 3)), ArgumentError,
         "MeanSquaredError(): expected two inputs, outputs and targets, got 1"),
        (lambda: asked(None, (2, 3)), ArgumentError, "expected a layer, a net or a loss, got None"),
    ]  # fmt: skip


for name in ("check", "sweep"):
    lines(f"gradcheck.{name}", *of_any_check(getattr(gradcheck, name)))
lines("gradcheck.check",
      (lambda: gradcheck.check(relu, (2, 3), mode="direct"), UnknownNameError,
       "unknown mode of a gradient check 'direct': did you mean"),
      (lambda: gradcheck.check(relu, (2, 3), directions=0), ArgumentError,
       "directions: expected a positive integer, got 0"),
      (lambda: gradcheck.check(relu, (2, 3), elements=0), ArgumentError,
       "elements: expected a positive integer, got 0"),
      *each((0, nan, "small", 1e-9), lambda eps: gradcheck.check(relu, (2, 3), eps=eps), ArgumentError,
            "eps: expected a number in [1e-08, inf), got"),
      *each((0, nan, None), lambda tolerance: gradcheck.check(relu, (2, 3), tolerance=tolerance), ArgumentError,
            "tolerance: expected a number in (0, inf), got"),
      (lambda: gradcheck.check(relu, (2, 3), key=7), ArgumentError, "key: expected a Key, got 7"))
lines("gradcheck.sweep",
      (lambda: gradcheck.sweep(relu, (2, 3), key=7), ArgumentError, "key: expected a Key, got 7"),
      (lambda: gradcheck.sweep(relu, (2, 3), tensors=["weight"]), UnknownNameError,
       "unknown tensor of ReLU() 'weight'"))
suffixes, there = "name that ends in .png, .svg, .pdf, got", "in a folder that exists, got"
for asked in (gradcheck.picture_path, lambda path: gradcheck.plot(None, relu, (2, 3), path=path)):
    lines("gradcheck.picture_path" if asked is gradcheck.picture_path else "gradcheck.plot",
          *each(("a.bmp", "a", "a.PNG"), asked, ArgumentError, f"plot: expected a file {suffixes}"),
          *each(("/absent/a.png", "a.png/b.png"), asked, ArgumentError, f"plot: expected a file {there}"))
for asked in (catalogue.check_named, catalogue.cases):
    lines(f"catalogue.{asked.__name__}",
          *each(("Conv2", "alexnet_mimi", "", "every", "Conv2d: dilatd", None, 2), asked, UnknownNameError,
                "unknown layer, loss or model"))
lines("catalogue.own_case",
      (lambda: catalogue.own_case("absent.py:Scale(3)", (2, 3)), ArgumentError,
       "absent.py:Scale(3): FileNotFoundError"),
      (lambda: catalogue.own_case(f"{__file__}:Forgetful()", None), ArgumentError,
       "needs the shape of its input, as in --shape 2,5,5,3"),
      (lambda: catalogue.own_case("no colon", (2, 3)), ArgumentError, "no colon: "),
      (lambda tmp_path: catalogue.own_case(f"{written(tmp_path, 'x = 1')}:y", (2, 3)), ArgumentError,
       "name 'y' is not defined"),
      (lambda tmp_path: catalogue.own_case(f"{written(tmp_path, 'x = 1')}:x", (2, 3)), ArgumentError,
       "expected a layer, got 1"))
sizes = "expected positive sizes, (H, W, C) for an image, got"
lines("summary.summarize",
      *each((5, None, "abc", (), (8, 8, 0), (8.0, 8, 3), (8, -8, 3), (True, 8, 3)), lambda shape: summarize(net, shape),
            ArgumentError, f"input_shape: {sizes}"),
      (lambda: summarize(ReLU, (2,)), ArgumentError,
       "summarize: net: expected a Layer, got the class ReLU; make one: ReLU(…)"),
      (lambda: summarize("alexnet", (2,)), ArgumentError, "summarize: net: expected a Layer, got 'alexnet'"),
      (lambda: summarize(net, (1, 2)), ShapeError,
       "fc: Linear(2→3): expected the axes (N, 2); put a Flatten() before it; got 3 axes in x"))
lines("summary.draw",
      (lambda: draw(net), ArgumentError, "draw: summary: expected a Summary, got Sequential("),
      (lambda: draw(None), ArgumentError, "draw: summary: expected a Summary, got None"),
      *each((0, -3, "80", 80.0), lambda width: draw(summarize(net, (2,)), width),
            ArgumentError, f"draw: width: {positive}"))
lines("models.get",
      *each(("", None, 3, ["alexnet"]), models.get, UnknownNameError, "unknown model"),
      (lambda: models.get("alexnte"), UnknownNameError, "unknown model 'alexnte': did you mean 'alexnet'?"),
      (lambda: models.get("VGG"), UnknownNameError, "unknown model 'VGG': did you mean 'vgg1"))
lines("models.parse",
      *each(("", "alexnet(", "alexnet(1)", "alexnet(groups=x)", "1 + 1", "alexnet(__import__('os'))"), models.parse,
            ArgumentError, "model: expected a name or a call such as 'alexnet(groups=1)', got"),
      (lambda: models.parse(None), ArgumentError, "model: expected a name, got None"),
      (lambda: models.parse(models.alexnet), ArgumentError, "model: expected a name, got <function alexnet"),
      (lambda: models.parse("alexnte(groups=1)"), UnknownNameError, "unknown model 'alexnte': did you mean 'alexnet'"))
alexnet = models.get("alexnet")
lines("models.Model",
      (lambda: alexnet.build(group=2), UnknownNameError, "unknown option of alexnet 'group': did you mean 'groups'"),
      (lambda: alexnet.build(groups=0), ArgumentError, f"alexnet: groups: {positive} 0"),
      (lambda: alexnet.build(num_classes=0), ArgumentError, f"alexnet: num_classes: {positive} 0"),
      (lambda: alexnet.build(num_classes="ten"), ArgumentError, f"alexnet: num_classes: {positive} 'ten'"),
      (lambda: alexnet.build(lrn="False"), ArgumentError, "alexnet: lrn: expected True or False, got 'False'"),
      (lambda: alexnet.scheme("papper"), UnknownNameError, "unknown init for alexnet 'papper': did you mean 'paper'"),
      (lambda: alexnet.scheme(None), UnknownNameError, "unknown init for alexnet None"))
for name in models.MODELS:
    make = getattr(models, name)
    lines(f"models.{name}",
          *each((0, -1, 3.0, "3", None), lambda channels, make=make: make(in_channels=channels),
                ArgumentError, f"Conv2d: in_channels: {positive}"))

# --- data -------------------------------------------------------------------------------------------------------------

digits = data.load("digits")
pixels = np.zeros((3, 8, 8, 1), np.uint8)
how = Preprocessing(6, 5, channels=1, resize=8, mean=(10.0,), std=(2.0,), mirror=True)


def written(folder: Path, text: str | bytes = "", name: str = "file.py") -> Path:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


class OneColour(Split):
    """The least that a split of one's own has to define."""

    def image(self, i: int, *, shorter_side: int | None = None) -> np.ndarray:
        return pixels[0]

    def name(self, i: int) -> str:
        return f"#{i}"


of_splits: dict[str, Callable[[Any], Split]] = {
    "Split": OneColour,
    "ArraySplit": lambda labels: ArraySplit(pixels, labels),
    "FileSplit": lambda labels: FileSplit(["a.png"] * 3, labels),
}
def of_any_split(make: Callable[[Any], Split]) -> list[Line]:
    return [
        (lambda: make([0.0, 1.0, 2.0]), LabelError, "labels: expected integers, got float64"),
        (lambda: make(["cat", "dog", "cat"]), LabelError, "labels: expected integers, got <U3"),
        (lambda: make([0, -1, 2]), LabelError, "labels: expected the numbers of classes, from 0, got -1"),
        (lambda: make([[0, 1, 2]]), ShapeError,
         "labels: expected one for each image, shape (N,), got (1, 3)"),
        (lambda: make([[0, 1], [2]]), ArgumentError, "labels: expected rows of equal length"),
        (lambda: make(None), ArgumentError, "labels: expected an array or lists of numbers, got None"),
        (lambda: make({0: 1}), ArgumentError, "labels: expected an array or lists of numbers, got {0: 1}"),
    ]  # fmt: skip


for name, make in of_splits.items():
    lines(f"data.{name}", *of_any_split(make))
lines("data.ArraySplit",
      (lambda: ArraySplit(pixels.tolist(), [0, 1, 2]), ArgumentError,
       "images: expected a plain NumPy or CuPy array, got [[["),
      (lambda: ArraySplit(pixels / 255, [0, 1, 2]), DTypeError, "images: expected uint8 from 0 to 255, got float64"),
      (lambda: ArraySplit(pixels[:2], [0, 1, 2]), ShapeError,
       "images: expected (3, height, width, channels), one for each label, got (2, 8, 8, 1)"),
      (lambda: ArraySplit(pixels[..., 0], [0, 1, 2]), ShapeError,
       "images: expected (3, height, width, channels), one for each label, got (3, 8, 8)"),
      (lambda: ArraySplit(np.zeros((3, 8, 8, 2), np.uint8), [0, 1, 2]), ArgumentError,
       "channels: expected 1 (grey) or 3 (RGB), got 2"))
lines("data.FileSplit",
      (lambda: FileSplit("abc", [0, 1, 2]), ArgumentError, "paths: expected a sequence of paths, got 'abc'"),
      (lambda: FileSplit(None, [0]), ArgumentError, "paths: expected a sequence of paths, got None"),
      (lambda: FileSplit([3], [0]), ArgumentError, "paths[0]: expected a path, got 3"),
      (lambda: FileSplit(["a.png", "b.png"], [0]), ShapeError, "labels: expected 2, one for each path, got 1"),
      (lambda: FileSplit(["a.png"], [0], channels=4), ArgumentError, "channels: expected 1 (grey) or 3 (RGB), got 4"))


def dataset(**changes: Any) -> Dataset:
    return replace(digits, **changes)


lines("data.Dataset",
      (lambda: dataset(class_names=()), ArgumentError, "class_names: expected a tuple of names, got ()"),
      (lambda: dataset(class_names="0123456789"), ArgumentError,
       "class_names: expected a tuple of names, got '0123456789'"),
      (lambda: dataset(class_names=tuple(range(10))), ArgumentError,
       "class_names: expected a tuple of names, got (0, 1"),
      (lambda: dataset(class_names=tuple("012345678")), LabelError, "train: expected labels from 0 to 8, got 9"),
      (lambda: dataset(train=pixels), ArgumentError, "train: expected a Split, got ndarray of uint8"),
      (lambda: dataset(test=None), ArgumentError, "test: expected a Split, got None"),
      (lambda: dataset(channels=2), ArgumentError, "channels: expected 1 (grey) or 3 (RGB), got 2"),
      (lambda: dataset(image_size=8), ArgumentError, "image_size: expected (height, width) or None, got 8"),
      (lambda: dataset(image_size=(8, 0)), ArgumentError, f"image_size: {positive} 0"),
      (lambda: dataset(mirror=None), ArgumentError, "mirror: expected True or False, got None"))
lines("data.stratified_split",
      *each((1, 0, 2.5, "5"), lambda one_in: stratified_split([0, 1], one_in=one_in, key=Key(0)),
            ArgumentError, "one_in: expected an integer of at least 2, got"),
      (lambda: stratified_split([0, 1], key=0), ArgumentError, "key: expected a Key, got 0"),
      (lambda: stratified_split([0.5, 1.0], key=Key(0)), LabelError, "labels: expected integers, got float64"),
      (lambda: stratified_split([[0, 1]], key=Key(0)), ShapeError, "labels: expected one for each image"),
      (lambda: stratified_split("0011", key=Key(0)), ArgumentError,
       "labels: expected an array or lists of numbers, got '0011'"))
lines("data.read_image",
      *each((None, 5, b"a.png", "a\0.png"), read_image, ArgumentError, "path: expected a path, got"),
      (lambda tmp_path: read_image(tmp_path / "none.jpg"), DataError, "none.jpg: cannot read the image: No such file"),
      (lambda tmp_path: read_image(tmp_path), DataError, "cannot read the image: Is a directory"),
      (lambda tmp_path: read_image(written(tmp_path, b"GIF89a", "a.png")), FormatError,
       "a.png: expected a JPEG or PNG image, but it begins with b'GIF89a'"),
      (lambda: read_image("a.png", channels=4), ArgumentError, "channels: expected 1 (grey) or 3 (RGB), got 4"),
      (lambda: read_image("a.png", channels=True), ArgumentError, "channels: expected 1 (grey) or 3 (RGB), got True"),
      (lambda: read_image("a.png", shorter_side=0), ArgumentError, f"shorter_side: {positive} 0"),
      (lambda: read_image("a.png", shorter_side="8"), ArgumentError, f"shorter_side: {positive} '8'"))
lines("data.load",
      *each((None, 3, ["digits"], "a\0b"), data.load,
            ArgumentError, "data: expected words such as 'digits' or 'folder:DIR', got"),
      (lambda: data.load("digit"), UnknownNameError, "unknown data 'digit': did you mean 'digits'"),
      (lambda: data.load(""), UnknownNameError, "unknown data ''"),
      (lambda: data.load("folder:"), ArgumentError, "data 'folder:': which folder? Write 'folder:DIR'"),
      (lambda: data.load("digits:8"), ArgumentError,
       "data 'digits:8': digits is part of minidl and takes nothing; write 'digits'"),
      (lambda: data.load("synthetic:8x8:3:4"), ArgumentError,
       "data 'synthetic:8x8:3:4': expected synthetic:HxWxC:classes:count"),
      (lambda tmp_path: data.load(f"mnist:{tmp_path}"), DataError,
       "expected one of train-images-idx3-ubyte, train-images.idx3-ubyte"),
      (lambda tmp_path: data.load(f"folder:{written(tmp_path)}"), DataError, "file.py: is a file; expected a folder"))


def loaded(**changes: Any) -> Loader:
    return Loader(**{"split": digits.train, "preprocessing": how, "batch_size": 64, "train": False, **changes})


lines("data.Loader",
      *each((0, -1, 2.5, "64", None), lambda size: loaded(batch_size=size),
            ArgumentError, f"Loader: batch_size: {positive}"),
      (lambda: loaded(split=pixels), ArgumentError, "Loader: split: expected a Split, got ndarray of uint8"),
      (lambda: loaded(split=digits), ArgumentError, "Loader: split: expected a Split, got Dataset("),
      (lambda: loaded(preprocessing=None), ArgumentError, "Loader: preprocessing: expected a Preprocessing, got None"),
      (lambda: loaded(train="yes"), ArgumentError, "Loader: train: expected True or False, got 'yes'"),
      (lambda: loaded(train=True), ArgumentError,
       "key: training draws order, crops and mirroring from one; pass key=Key(seed)"),
      (lambda: loaded(train=True, key=7), ArgumentError, "Loader: key: expected a Key, got 7"),
      (lambda: loaded(dtype="complex64"), DTypeError, "dtype: expected one of float32, float64,"),
      (lambda: loaded(on_bad_image="ignore"), UnknownNameError, "unknown on_bad_image 'ignore'"),
      (lambda: loaded(prefetch=-1), ArgumentError, "Loader: prefetch: expected an integer of at least 0, got -1"),
      (lambda: loaded().epoch(-1), ArgumentError, "epoch: expected an integer of at least 0, got -1"),
      (lambda: loaded().epoch(0.5), ArgumentError, "epoch: expected an integer of at least 0, got 0.5"),
      (lambda: loaded().epoch(0, start=-1), ArgumentError, "start: expected an integer of at least 0, got -1"),
      (lambda: loaded().epoch(0, start=24), ArgumentError,
       "start: expected from 0 to 23, the number of batches, got 24"))
lines("data.Preprocessing",
      (lambda: replace(how, height=0), ArgumentError, f"height: {positive} 0"),
      (lambda: replace(how, width=2.5), ArgumentError, f"width: {positive} 2.5"),
      (lambda: replace(how, resize=5), ArgumentError, "resize: expected at least 6, since 6×5 is cut"),
      (lambda: replace(how, channels=2), ArgumentError, "channels: expected 1 (grey) or 3 (RGB), got 2"),
      (lambda: replace(how, mean=10.0), ArgumentError, "mean: expected 1 finite number(s), got 10.0"),
      (lambda: replace(how, mean=(nan,)), ArgumentError, "mean: expected 1 finite number(s), got (nan,)"),
      (lambda: replace(how, std=(0.0,)), ArgumentError, "std: expected 1 finite number(s) above 0, got (0.0,)"),
      (lambda: replace(how, std=(1.0, 1.0)), ArgumentError, "std: expected 1 finite number(s) above 0, got (1.0, 1.0)"),
      (lambda: replace(how, mirror=1), ArgumentError, "mirror: expected True or False, got 1"),
      (lambda: how.resized_size(0, 5), ArgumentError, f"H: {positive} 0"),
      (lambda: how.pixels([[0]]), ArgumentError, "image: expected a plain NumPy or CuPy array, got [[0]]"),
      (lambda: how.pixels(pixels[0] / 255), DTypeError, "image: expected uint8 from 0 to 255, got float64"),
      (lambda: how.pixels(pixels), ShapeError, "image: expected (height, width, 1 or 3), got (3, 8, 8, 1)"),
      (lambda: how.pixels(pixels[0, :0]), ShapeError, "image: expected (height, width, 1 or 3), got (0, 8, 1)"),
      (lambda: how.apply(pixels[0], dtype="complex64"), DTypeError, "dtype: expected one of float32, float64,"),
      (lambda: how.pixels(pixels[0], top=2.0), ArgumentError, "top: expected a number in [0, 1], got 2.0"),
      (lambda: how.pixels(pixels[0], left=nan), ArgumentError, "left: expected a number in [0, 1], got nan"),
      (lambda: how.pixels(pixels[0], mirrored="no"), ArgumentError, "mirrored: expected True or False, got 'no'"),
      (lambda: how.normalise(None), ArgumentError, "pixels: expected a plain NumPy or CuPy array, got None"),
      (lambda: how.normalise(np.zeros((8, 8, 3), np.uint8)), ShapeError,
       "pixels: expected (height, width, 1) or a batch of it, got (8, 8, 3)"),
      (lambda: how.normalise(pixels, "int8"), DTypeError, "dtype: expected one of float32, float64,"),
      (lambda: how.resized(OneColour([0])), ArgumentError, "split: expected an ArraySplit, got "),
      (lambda: Preprocessing.measured_on(pixels, height=6, width=5), ArgumentError,
       "split: expected a Split, got ndarray of uint8"),
      (lambda: Preprocessing.measured_on(digits.train, height="6", width=5), ArgumentError, f"height: {positive} '6'"),
      (lambda: Preprocessing.measured_on(digits.train, height=6, width=5, limit=0), ArgumentError,
       f"limit: {positive} 0"),
      (lambda: Preprocessing.measured_on(digits.train, height=6, width=5, channels=4), ArgumentError,
       "channels: expected 1 (grey) or 3 (RGB), got 4"),
      (lambda: Preprocessing.measured_on(digits.train, height=6, width=5, on_bad_image="skipp"), UnknownNameError,
       "unknown on_bad_image 'skipp': did you mean 'skip'"),
      (lambda: Preprocessing.from_dict({"height": 3}), FormatError, "preprocessing: expected the fields height, width"),
      (lambda: Preprocessing.from_dict([1]), FormatError, "preprocessing: expected the fields height, width"))

# --- training ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    """A short training on noise."""
    config = Config(model="lenet5", data="synthetic:28x28x1:10:8", epochs=1, batch=8)
    return load_run(train(config, tmp_path_factory.mktemp("run") / "run").folder)


def taken(**changes: Any) -> None:
    own = Sequential(fc=Linear(2, 3))
    given = {"net": own, "loss": CE(), "optimizer": SGD(own.parameters()), "lr": 0.1, "key": Key(0)}
    train_step(**{**given, "images": ones(4, 2), "labels": [0, 1, 2, 0], **changes})


lines("training.train_step",
      (lambda: taken(net=Linear), ArgumentError,
       "train_step: net: expected a Layer, got the class Linear; make one: Linear(…)"),
      (lambda: taken(loss=CE), ArgumentError,
       "train_step: loss: expected a Loss, got the class SoftmaxCrossEntropy; make one: SoftmaxCrossEntropy(…)"),
      (lambda: taken(optimizer=None), ArgumentError, "train_step: optimizer: expected an Optimizer, got None"),
      (lambda: taken(key=0), ArgumentError, "train_step: key: expected a Key, got 0"),
      (lambda: taken(lr="fast"), ArgumentError, "SGD: lr: expected a number in [0, inf), got 'fast'"),
      (lambda: taken(images=ones(4, 5)), ShapeError, "fc: Linear(2→3): expected 2 features, got 5 in x (4, 5)"),
      (lambda: taken(labels=[0, 1, 2, 3]), LabelError, "expected labels from 0 to 2, got 3 at position 3"),
      (lambda: taken(labels=[0, 1]), ShapeError, "expected labels of shape (4,) for logits (4, 3), got (2,)"),
      (lambda: taken(loss=CE(reduction="none")), ArgumentError,
       "train_step: loss: expected one that gives a single number, got"),
      (lambda: taken(images=nan * ones(4, 2)), NonFiniteError,
       "the loss is nan: the images themselves hold NaN or infinity"))
lines("training.Config",
      (lambda: Config(epochs=0), ArgumentError, "epochs: expected at least 1, got 0"),
      (lambda: Config(epochs=1.5), ArgumentError, "epochs: expected an integer, got 1.5"),
      (lambda: Config(epochs=True), ArgumentError, "epochs: expected an integer, got True"),
      (lambda: Config(batch=-1), ArgumentError, "batch: expected at least 1, got -1"),
      (lambda: Config(lr=nan), ArgumentError, "lr: expected a number ≥ 0, got nan"),
      (lambda: Config(lr="fast"), ArgumentError, "lr: expected a number, got 'fast'"),
      (lambda: Config(momentum=1.0), ArgumentError, "momentum: expected a number of at least 0 and below 1, got 1.0"),
      (lambda: Config(label_smoothing=1.5), ArgumentError, "label_smoothing: expected a number from 0 to 1, got 1.5"),
      (lambda: Config(seed=None), ArgumentError, "seed: expected an integer, got None"),
      (lambda: Config(model=models.alexnet), ArgumentError, "model: expected a string, got <function"),
      (lambda: Config(warmup=99), ArgumentError, "warmup: expected at most the 16 epochs"),
      (lambda: Config(schedule="cosin"), UnknownNameError, "unknown schedule 'cosin': did you mean 'cosine'"),
      (lambda: Config(optimizer="adam"), UnknownNameError, "unknown optimizer 'adam': did you mean 'adamw'"),
      (lambda: Config(precision="half"), UnknownNameError, "unknown precision 'half'"),
      (lambda: Config(precision="tf32"), ArgumentError, "precision: tf32 is a mode of a GPU's matrix products"),
      (lambda: Config(on_bad_image="ignore"), UnknownNameError, "unknown on_bad_image 'ignore'"),
      (lambda: Config.from_mapping({"epoch": 3}, "a test"), UnknownNameError,
       "unknown setting in a test 'epoch': did you mean 'epochs'"),
      (lambda: Config.from_mapping([3], "a test"), ArgumentError,
       "values: expected names and values, got [3] in a test"))
lines("training.configure",
      (lambda: configure(epoch=3), UnknownNameError, "unknown setting in configure 'epoch': did you mean 'epochs'"),
      (lambda: configure(model="alexnte"), UnknownNameError, "unknown model 'alexnte': did you mean 'alexnet'"),
      (lambda: configure(model=None), ArgumentError, "model: expected a name, got None"),
      (lambda: configure(epochs="3"), ArgumentError, "epochs: expected an integer, got '3'"),
      (lambda: configure(lr=-1), ArgumentError, "lr: expected a number ≥ 0, got -1"))
lines("training.train",
      (lambda: train(None), ArgumentError, "train: config: expected a Config, got None"),
      (lambda: train({"epochs": 3}), ArgumentError, "train: config: expected a Config, got {'epochs': 3}"),
      (lambda: train(Config(), out=5), ArgumentError, "train: out: expected a path, got 5"),
      (lambda: train(Config(), reporter=print), ArgumentError,
       "reporter: expected a Reporter, got <built-in function print>"),
      (lambda: train(Config(device="tpu")), ArgumentError, "device: expected 'cpu', 'cuda' or 'cuda:N', got 'tpu'"),
      (lambda: train(Config(data="digit")), UnknownNameError, "unknown data 'digit': did you mean 'digits'"),
      (lambda run: train(Config(), out=run.path.parent), ArgumentError,
       "already holds a run; go on with it by --resume"),
      (lambda: train(Config(model="lenet5(num_classes=7)")), ArgumentError,
       "model lenet5(num_classes=7): expected one output for each of the 10 classes"))
lines("training.resume",
      (lambda: resume(None), ArgumentError, "resume: folder: expected a path, got None"),
      (lambda tmp_path: resume(tmp_path / "absent"), CheckpointError, "absent: no such run folder"),
      (lambda tmp_path: resume(tmp_path), CheckpointError, "holds no checkpoint (last.safetensors)"),
      (lambda run: resume(run.path.parent, epochs=0), ArgumentError, f"resume: epochs: {positive} 0"),
      (lambda run: resume(run.path.parent, epochs="3"), ArgumentError, f"resume: epochs: {positive} '3'"),
      (lambda run: resume(run.path.parent, device="tpu"), ArgumentError,
       "device: expected 'cpu', 'cuda' or 'cuda:N', got 'tpu'"),
      (lambda run: resume(run.path.parent, reporter=3), ArgumentError, "reporter: expected a Reporter, got 3"))
def of_any_loading(asked: Callable[..., Any]) -> list[Line]:
    return [
        *each((None, 5, b"run", "a\0b"), lambda path, : asked(path),
              ArgumentError, "path: expected a path, got"),
        (lambda tmp_path, : asked(tmp_path / "absent"), CheckpointError, "absent: no such checkpoint"),
        (lambda tmp_path, : asked(written(tmp_path, "no checkpoint")), CheckpointError,
         "file.py: the checkpoint is damaged"),
    ]  # fmt: skip


lines("training.load_run", *of_any_loading(load_run))
lines("training.checkpoint.load_checkpoint", *of_any_loading(load_checkpoint))
lines("training.load_run", (lambda run: load_run(run.path, device="tpu"), ArgumentError,
"device: expected 'cpu', 'cuda' or 'cuda:N', got 'tpu'"))
lines("training.LoadedRun",
      *each((0, -1, 2.5, "5"), lambda top, run: run.predict("a.png", top), ArgumentError, f"predict: top: {positive}"),
      (lambda run: run.predict(None), ArgumentError, "path: expected a path, got None"),
      (lambda run, tmp_path: run.predict(tmp_path / "none.png"), DataError, "none.png: cannot read the image"),
      (lambda run: run.evaluate(split="val"), UnknownNameError, "unknown split 'val'"),
      (lambda run: run.evaluate(split=None), UnknownNameError, "unknown split None"),
      (lambda run: run.evaluate(data=3), ArgumentError, "data: expected words such as 'digits' or 'folder:DIR', got 3"),
      (lambda run: run.evaluate("synthetic:28x28x1:3:8"), DataError,
       "synthetic:28x28x1:3:8: expected the 10 classes that the run was trained on"),
      (lambda run: run.evaluate(on_bad_image="ignore"), UnknownNameError, "unknown on_bad_image 'ignore'"))
lines("training.checkpoint.save_checkpoint",
      (lambda: save_checkpoint(None, {}, {}), ArgumentError, "path: expected a path, got None"),
      (lambda tmp_path: save_checkpoint(tmp_path / "absent" / "c", {}, {}), CheckpointError,
       "cannot write the checkpoint (No such file"),
      (lambda tmp_path: save_checkpoint(tmp_path / "c", [ones(3)], {}), ArgumentError,
       "arrays: expected a dictionary whose keys are names, got [array("),
      (lambda tmp_path: save_checkpoint(tmp_path / "c", {3: ones(3)}, {}), ArgumentError,
       "arrays: expected a dictionary whose keys are names"),
      (lambda tmp_path: save_checkpoint(tmp_path / "c", {"w": [1.0]}, {}), ArgumentError,
       "arrays: expected an array of numbers as 'w', got [1.0]"),
      (lambda tmp_path: save_checkpoint(tmp_path / "c", {"w": np.array(["a"])}, {}), ArgumentError,
       "arrays: expected an array of numbers as 'w'"),
      (lambda tmp_path: save_checkpoint(tmp_path / "c", {}, None), ArgumentError,
       "state: expected a dictionary whose keys are names, got None"),
      (lambda tmp_path: save_checkpoint(tmp_path / "c", {}, {"key": Key(0)}), ArgumentError,
       "state: expected what JSON can hold: "))
lines("training.checkpoint.keep_checkpoint",
      (lambda: keep_checkpoint(None, "best"), ArgumentError, "path: expected a path, got None"),
      (lambda tmp_path: keep_checkpoint(tmp_path / "absent", "best"), CheckpointError,
       "best: cannot write the checkpoint (No such file"),
      *each((None, "", "../best", "a/b", "last.safetensors", "."), lambda name, run: keep_checkpoint(run.path, name),
            ArgumentError, "name: expected another name of a file, without a folder, got"))

# --- the command line -------------------------------------------------------------------------------------------------


class RefusedError(Exception):
    """A command ended with an exit code other than 0: the code, and what it said on standard error."""


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., None]:
    """The command `minidl`, in an empty folder."""

    def run(*arguments: object) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["minidl", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        assert not list(tmp_path.iterdir()), "a refused request leaves nothing behind"
        if stop.value.code:
            raise RefusedError(f"{stop.value.code}: {said.err}")

    return run


def command(*arguments: str, said: str) -> Line:
    """A line about a command; RUN among its arguments stands for the checkpoint of a run."""
    if "RUN" not in arguments:
        return (lambda refuse: refuse(*arguments)), RefusedError, said
    return (lambda refuse, run: refuse(*(run.path if a == "RUN" else a for a in arguments))), RefusedError, said


lines("cli.train",
      command("trian", said="No such command 'trian'"),
      command("train", "--epoch", "3", said="No such option: --epoch"),
      command("train", "--epochs", "three", said="Invalid value for '--epochs'"),
      command("train", "--epochs", "0", said="2: minidl: epochs: expected at least 1, got 0"),
      command("train", "--lr", "nan", said="2: minidl: lr: expected a number ≥ 0, got nan"),
      command("train", "--warmup", "1e308", said="2: minidl: warmup: expected at most the 16 epochs"),
      command("train", "--seed", "-1", said="2: minidl: seed: expected an integer from 0"),
      command("train", "--device", "tpu", said="2: minidl: device: expected 'cpu', 'cuda' or 'cuda:N', got 'tpu'"),
      command("train", "--init", "xavier", said="2: minidl: unknown init for alexnet_mini 'xavier'"),
      command("train", "--model", "alexnte", said="2: minidl: unknown model 'alexnte': did you mean 'alexnet'?"),
      command("train", "--model", "alexnet(group=1)", said="unknown option of alexnet 'group': did you mean 'groups'?"),
      command("train", "--model", "alexnet(__import__('os'))", said="2: minidl: model: expected a name or a call"),
      command("train", "--data", "digit", said="2: minidl: unknown data 'digit': did you mean 'digits'?"),
      command("train", "--data", "folder:absent", said="1: minidl: absent: no such folder"),
      command("train", "--data", "folder:~nobody-here/x", said="1: minidl: data 'folder:~nobody-here/x'"),
      command("train", "--data", f"synthetic:9x9x1:3:{10**20}", said=f"2: minidl: data 'synthetic:9x9x1:3:{10**20}':"),
      command("train", "--config", "absent.toml", said="1: minidl: config absent.toml: cannot be read"),
      command("train", "--resume", "absent", said="1: minidl: absent: no such run folder"),
      command("train", "--resume", "absent", "--lr", "1", said="2: minidl: resume: a run goes on with the settings it"),
      command("train", "--out", "RUN", said="2: minidl: out: "))
lines("cli.eval",
      command("eval", said="Missing argument 'run'"),
      command("eval", "absent", said="1: minidl: absent: no such checkpoint"),
      command("eval", "RUN", "--split", "val", said="2: minidl: unknown split 'val'"),
      command("eval", "RUN", "--data", "digit", said="2: minidl: unknown data 'digit': did you mean 'digits'"),
      command("eval", "RUN", "--device", "tpu", said="2: minidl: device: expected 'cpu'"),
      command("eval", "RUN", "--on-bad-image", "ignore", said="2: minidl: unknown on_bad_image 'ignore'"))
lines("cli.predict",
      command("predict", said="Missing argument 'run'"),
      command("predict", "RUN", said="Missing argument 'images"),
      command("predict", "absent", "a.png", said="1: minidl: absent: no such checkpoint"),
      command("predict", "RUN", "none.png", said="1: minidl: none.png: cannot read the image"),
      command("predict", "RUN", "a.png", "--top", "0", said="Invalid value for '--top'"),
      command("predict", "RUN", "a.png", "--device", "tpu", said="2: minidl: device: expected 'cpu'"))
lines("cli.summary",
      command("summary", "vggg", said="2: minidl: unknown model 'vggg': did you mean 'vgg"),
      command("summary", "alexnet(groups=0)", said=f"2: minidl: alexnet: groups: {positive} 0"),
      command("summary", "alexnet(groups=5)", said="2: minidl: Conv2d: groups: expected a divisor of in_channels=96"),
      command("summary", "alexnet(lrn=0)", said="2: minidl: alexnet: lrn: expected True or False, got 0"),
      command("summary", "alexnet", "--jsn", said="No such option: --jsn"))
lines("cli.gradcheck",
      command("gradcheck", "relo", said="2: minidl: unknown layer, loss or model 'relo': did you mean 'ReLU'"),
      command("gradcheck", "relu", "--plot", "a.bmp", said="2: minidl: plot: expected a file name that ends in"),
      command("gradcheck", "relu", "--break", "gat", said="did you mean 'gate'"),
      command("gradcheck", "--break", "gate", said="2: minidl: break: expected one layer to plant 'gate' in"),
      command("gradcheck", "relu", "--shape", "two", said="2: minidl: shape: expected sizes with commas between"),
      command("gradcheck", "relu", "--device", "tpu", said="2: minidl: device: expected 'cpu', 'cuda' or 'cuda:N'"))
lines("cli.warmup",
      *(command("warmup", word, said=f"No such option: {word}") for word in ("--jsn", "--all", "-j", "--mode", "--no")))
lines("cli.doctor",
      *(command("doctor", word, said=f"No such option: {word}") for word in ("--jsn", "--all", "-j", "--gpu", "--no")))
lines("cli.bench",
      command("bench", "--model", "alexnte", said="2: minidl: unknown model 'alexnte': did you mean 'alexnet'"),
      command("bench", "--mode", "trian", said="2: minidl: unknown mode 'trian': did you mean 'train'"),
      command("bench", "--op", "conv3d", said="2: minidl: unknown op 'conv3d': did you mean 'conv2d'"),
      command("bench", "--batch", "0", said="2: minidl: batch: expected positive integers with commas between"),
      command("bench", "--threads", "two", said="2: minidl: threads: expected positive integers with commas between"),
      command("bench", "--peer", "caffe", said="2: minidl: unknown peer 'caffe': Known: minidl-cpu, torch"),
      command("bench", "--repeats", "0", said="2: minidl: bench: repeats: expected a positive integer, got 0"),
      command("bench", "--peer", "onnxruntime", said="onnxruntime: it only infers; measure it with --mode infer"),
      command("bench", "--model", "vgg16", "--batch", "100000", said="1: minidl: bench: vgg16 at batch 100000 needs"))
# fmt: on

# --- what the table is held to ----------------------------------------------------------------------------------------

PUBLIC: dict[str, types.ModuleType] = {
    "minidl": minidl, "layers": layers, "losses": losses, "optim": optim, "schedules": schedules,
    "initializers": initializers, "window": window, "random": random, "arrays": arrays, "devices": devices,
    "accelerate": accelerate,
    "gradcheck": gradcheck, "catalogue": catalogue, "summary": summary, "models": models, "data": data,
    "training": training, "training.checkpoint": checkpoints, "inference": inference_module,
}  # fmt: skip

EXEMPT = {
    "a result, which nobody makes by hand": {
        "data.Batch", "gradcheck.Element", "gradcheck.Report", "gradcheck.TensorReport", "gradcheck.Curve",
        "gradcheck.ErrorMap", "gradcheck.Sweep", "summary.View", "summary.Row", "summary.Summary", "catalogue.Case",
    },
    "takes anything": {"arrays.is_array", "arrays.is_half", "arrays.array_module", "catalogue.kind", "catalogue.plain"},
    "a check itself": {"arrays.as_array", "arrays.require_array", "arrays.require_device", "arrays.has_float_dtype"},
    "an abstract base, whose heirs are in the table": {"losses.Loss"},
    "a tool for those who write layers or ops": {"accelerate.accelerated", "arrays.dtype_name", "initializers.bare"},
    "a tool for those who say what is wrong with a GPU": {
        "devices.install", "devices.cuda_version", "devices.first_line",
    },
    "takes nothing": {
        "accelerate.compile_convolutions", "devices.cupy_module", "devices.cupy_packages", "devices.driver_cuda",
        "devices.gpu_problem",
    },
}  # fmt: skip


def public_names() -> Iterator[tuple[str, Any]]:
    for title, module in PUBLIC.items():
        own = {
            name: value for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__
        }
        for name in getattr(module, "__all__", own):
            value = getattr(module, name)
            if not name.startswith("_") and (inspect.isclass(value) or callable(value)):
                yield f"{title}.{name}", value
    for command in cli.app.registered_commands:
        yield f"cli.{command.name}", command.callback


SUBJECTS = dict(public_names())


@pytest.mark.parametrize(
    ("call", "exception", "words"),
    [pytest.param(*line, id=f"{subject}: {line[2]}") for subject, all_lines in BAD.items() for line in all_lines],
)
def test_a_careless_call_is_refused_in_words(call, exception, words, request):
    with pytest.raises(exception) as caught:
        call(**{name: request.getfixturevalue(name) for name in inspect.signature(call).parameters if name in FIXTURES})
    assert type(caught.value) is exception, "its class is the documented one, not one that inherits from it"
    assert words in str(caught.value)


FIXTURES = ("monkeypatch", "tmp_path", "run", "refuse")


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_public_name_is_called_wrongly_in_five_ways(subject):
    exempt = set().union(*EXEMPT.values())
    assert (len(BAD.get(subject, [])) >= 5) != (subject in exempt)


def test_the_table_is_about_public_names():
    assert set(BAD) <= set(SUBJECTS)
    assert set().union(*EXEMPT.values()) <= set(SUBJECTS)


def methods(subject: Any) -> list[Callable[..., Any]]:
    """A function itself; of a class, all that can be called of it, and of those that it inherits from."""
    if not inspect.isclass(subject):
        return [subject, models.Model.build] if subject in MODEL_FUNCTIONS else [subject]
    bases = [base for base in inspect.getmro(subject) if base.__module__.startswith("minidl")]
    own = [getattr(base, name) for base in bases for name in vars(base) if not name.startswith("_")]
    return [*bases, *(value for value in own if callable(value))]


# How a message may speak of an argument that has another name, or stands for several: a table, settings, a file, …
SPOKEN_OF = {
    "layers": "layer branch branches model backward", "losses": "logits labels", "optim": "gradient updates bias",
    "initializers": "shape generator init value", "window": "height width",
    "minidl": "kernels setting MINIDL_NUM_THREADS",
    "accelerate": "kernels MINIDL_NUM_THREADS", "catalogue": "layer absent name colon",
    "gradcheck": "layer class tensor plot input x direction",
    "summary": "x", "models": "model option init groups num_classes lrn", "data": "channels image images data folder",
    "training": "model setting loss folder run checkpoint classes device data x epochs lr",
    "cli": "command option checkpoint folder image groups lrn layer gate",
}  # fmt: skip

MODEL_FUNCTIONS = [model.factory for model in models.MODELS.values()]


def told_of(function: Callable[..., Any]) -> str:
    """What a docstring says, with those of the functions of its module that it names in backticks."""
    text = inspect.getdoc(function) or ""
    places = [sys.modules[function.__module__], sys.modules[function.__module__.rpartition(".")[0]]]
    named = [getattr(place, name, None) for name in re.findall(r"`(\w+)`", text) for place in places]
    return "\n".join([text, *(inspect.getdoc(other) or "" for other in named if callable(other))])


@pytest.mark.parametrize("subject", BAD)
def test_every_exception_is_documented(subject):
    documented = "\n".join(map(told_of, methods(SUBJECTS[subject])))
    for _, exception, words in BAD[subject]:
        kinds = [
            kind.__name__ for kind in exception.__mro__ if issubclass(kind, MinidlError) and kind is not MinidlError
        ]
        assert exception is RefusedError or any(kind in documented for kind in kinds), f"{exception.__name__}: {words}"


@pytest.mark.parametrize("subject", BAD)
def test_every_message_names_an_argument(subject):
    names = {name for method in methods(SUBJECTS[subject]) for name in inspect.signature(method).parameters}
    names |= {name for title in (subject.partition(".")[0], subject) for name in SPOKEN_OF.get(title, "").split()}
    for _, _, words in BAD[subject]:
        assert names & set(re.findall(r"\w+", words)), f"{words!r} names none of {names}"


# --- what looks careless and is not -----------------------------------------------------------------------------------


def test_numpy_integers_serve_as_sizes():
    three, five = np.int64(3), np.uint8(5)
    conv = Conv2d(three, five, np.int32(2), stride=np.int64(1), padding=(np.int64(1), 0), groups=np.int8(1))
    assert repr(conv) == "Conv2d(3→5, 2×2, padding=(1, 0))"
    assert conv.output_shape((np.int64(8), 8, three)) == (9, 7, 5)
    assert repr(Linear(three, five)) == "Linear(3→5)"
    assert repr(BatchNorm2d(three)) == "BatchNorm2d(3)"
    assert repr(LocalResponseNorm(five)) == repr(LocalResponseNorm(5))
    assert summarize(conv, tuple(np.array([8, 8, 3]))).output_shape == (9, 7, 5)
    assert Key(np.uint64(7)).at(np.int64(120)) == Key(7).at(120)
    assert (Step(0.1, three).lr(np.int64(6)), Cosine(0.1, five).lr(five)) == (Step(0.1, 3).lr(6), 0)
    assert Config(epochs=three) == Config(epochs=3)
    assert len(loaded(batch_size=np.int64(64))) == 23


@pytest.mark.parametrize(
    "make",
    [
        lambda number: LocalResponseNorm(5, alpha=number(0.5), beta=number(0.5), k=number(2)),
        lambda number: BatchNorm2d(4, eps=number(0.5), momentum=number(0.5)),
        lambda number: Dropout(number(0.5)),
    ],
    ids=["LocalResponseNorm", "BatchNorm2d", "Dropout"],
)
@pytest.mark.parametrize("number", [np.float64, np.float32])
def test_a_numpy_number_as_a_setting_changes_no_dtype(make, number, kernels):
    x, layer, plain = np.random.default_rng(0).random((2, 3, 3, 4), "float32"), make(number), make(float)
    y, cache = layer.forward(x, train=True, key=Key(0))
    dx = layer.backward(y, cache)
    expected, cache = plain.forward(x, train=True, key=Key(0))
    for given, wanted in (y, expected), (dx, plain.backward(expected, cache)):
        np.testing.assert_array_equal(given, wanted, strict=True)


@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_a_numpy_number_as_a_rate_is_that_number(kind):
    ours, plain = weights(), weights()
    for own, number in (ours, np.float64), (plain, float):
        for value in own.values():
            value.grad = ones(*value.shape)
        kind(own, weight_decay=number(0.25), lr_multipliers={"*": number(0.5)}).step(number(0.1))
    for name, value in ours.items():
        np.testing.assert_array_equal(value.value, plain[name].value, strict=True)


def test_read_only_and_mapped_arrays_are_arrays(tmp_path):
    mapped = np.memmap(tmp_path / "x", "float32", "w+", shape=(2, 3))
    frozen = ones(2, 3)
    frozen.flags.writeable = False
    fc = Linear(3, 2)
    for x in mapped, frozen:
        y, cache = fc.forward(x, train=True)
        assert fc.backward(y, cache).shape == (2, 3)


def test_a_cache_may_be_used_again_but_by_sequential():
    fc, x = Linear(4, 4), ones(2, 4)
    y, cache = fc.forward(x, train=True)
    np.testing.assert_array_equal(fc.backward(y, cache), fc.backward(y, cache))
