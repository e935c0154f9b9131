"""Layers, losses, optimisers and schedules at drawn settings, each with its oracle.

Every table at the end of a section holds, by class name, a function that draws: a new layer takes one here, and its
equation in `oracles.py`.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import oracles
from helpers import dtypes, seeds, sliding
from hypothesis import assume
from hypothesis import strategies as st

from minidl import Key, schedules
from minidl.layer import Layer
from minidl.layers import (
    AvgPool2d,
    BatchNorm2d,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    Linear,
    LocalResponseNorm,
    LogSoftmax,
    MaxPool2d,
    ReLU,
    Sequential,
    Sigmoid,
    Softmax,
    Sum,
    Tanh,
)
from minidl.losses import MeanSquaredError, SoftmaxCrossEntropy
from minidl.window import Window

Gradients = dict[str, np.ndarray]  # by name of the parameter


@dataclasses.dataclass
class Numbers:
    """Arrays of one dtype, drawn from a seed: normally distributed, or whole."""

    seed: int
    dtype: str
    whole: bool = False

    def __post_init__(self) -> None:
        self.generator = np.random.default_rng(self.seed)

    def __call__(self, *shape: int) -> np.ndarray:
        if self.whole:
            return self.generator.integers(-8, 9, shape).astype(self.dtype)
        return self.generator.standard_normal(shape).astype(self.dtype)


reals = st.builds(Numbers, seeds, dtypes)
doubles = st.builds(Numbers, seeds, st.just("float64"))
wholes = st.builds(Numbers, seeds, st.just("float64"), st.just(True))  # sums and products of them are exact

either = st.booleans()
probabilities = st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.999])
sizes = st.integers(1, 5)
shapes = st.lists(sizes, min_size=2, max_size=4).map(tuple)
image_shapes = st.tuples(st.integers(1, 3), sizes, sizes, st.integers(1, 3))


def exact(array: np.ndarray) -> np.ndarray:
    """The same numbers as an oracle takes them."""
    return array.astype(np.float64)


# --- layers -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Case:
    """A layer, an input, and the oracle's forward x → y and backward dy, x → dx, gradients.

    inference: the oracle's forward pass without `train`, where it is another.
    buffers: what the layer's buffers hold after one forward pass in training.
    condition: by how much the layer may enlarge a rounding error of x.
    """

    layer: Layer
    x: np.ndarray
    numbers: Numbers
    forward: oracles.Forward
    backward: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, Gradients]]
    inference: oracles.Forward | None = None
    buffers: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    key: Key = dataclasses.field(default_factory=Key)
    condition: float = 1.0


def filled(layer: Layer, numbers: Numbers) -> tuple[Layer, dict[str, np.ndarray]]:
    """The layer with drawn parameters, and these as an oracle takes them."""
    layer.to(dtype=numbers.dtype)
    for parameter in layer.parameters().values():
        parameter.value = numbers(*parameter.shape)
    return layer, {name: exact(parameter.value) for name, parameter in layer.parameters().items()}


def alone(backward: Callable[..., np.ndarray], *settings: Any) -> oracles.Backward:
    """The backward pass of a layer without parameters."""
    return lambda dy, x: (backward(dy, x, *settings), {})


def of_products(gradients: tuple[np.ndarray, np.ndarray, np.ndarray], bias: Any) -> tuple[np.ndarray, Gradients]:
    """dx, and by name dweight and dbias, the latter where there is a bias."""
    dx, dweight, dbias = gradients
    return dx, {"weight": dweight} if bias is None else {"weight": dweight, "bias": dbias}


def as_oracles(window: Window) -> oracles.Window:
    """The window as the oracles take it, and as `_asdict` as layers take it."""
    return oracles.Window(*dataclasses.astuple(window))


@st.composite
def conv2d(draw, numbers=reals, biased=either):
    (window, H, W), make = draw(sliding()), draw(numbers)
    window, groups = as_oracles(window), draw(st.integers(1, 3))
    C, O = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    layer, given = filled(Conv2d(C, O, **window._asdict(), groups=groups, bias=draw(biased)), make)
    weight, bias = given["weight"], given.get("bias")
    return Case(
        layer,
        make(draw(st.integers(1, 2)), H, W, C),
        make,
        forward=lambda x: oracles.conv2d(x, weight, bias, window, groups),
        backward=lambda dy, x: of_products(oracles.conv2d_backward(dy, x, weight, window, groups), bias),
    )


@st.composite
def linear(draw, numbers=reals, biased=either):
    make = draw(numbers)
    layer, given = filled(Linear(draw(sizes), draw(sizes), bias=draw(biased)), make)
    weight, bias = given["weight"], given.get("bias")
    return Case(
        layer,
        make(draw(sizes), len(weight)),
        make,
        forward=lambda x: oracles.linear(x, weight, bias),
        backward=lambda dy, x: of_products(oracles.linear_backward(dy, x, weight), bias),
    )


@st.composite
def pooled(draw):
    """A window that sees a pixel at every place, and the shape of the images."""
    window, H, W = draw(sliding())
    shape = draw(st.integers(1, 2)), H, W, draw(st.integers(1, 3))
    assume(all(pixels for _, pixels in oracles.pools(shape, as_oracles(window))))
    return as_oracles(window), shape


def with_ties_and_specials(draw: st.DrawFn, x: np.ndarray) -> np.ndarray:
    """Some of the time round numbers, which are often equal, and some of the time NaN and infinities among them."""
    if draw(st.booleans()):
        x = np.round(x)
    for seed, special in enumerate(draw(st.lists(st.sampled_from([np.nan, np.inf, -np.inf]), max_size=2))):
        x[np.random.default_rng(seed).random(x.shape) < 0.3] = special
    return x


@st.composite
def max_pool2d(draw, numbers=reals, specials=True):
    (window, shape), make = draw(pooled()), draw(numbers)
    return Case(
        MaxPool2d(**window._asdict()),
        with_ties_and_specials(draw, make(*shape)) if specials else make(*shape),
        make,
        forward=lambda x: oracles.max_pool2d(x, window),
        backward=alone(oracles.max_pool2d_backward, window),
    )


@st.composite
def global_max_pool2d(draw, numbers=reals, specials=True):
    make, shape = draw(numbers), draw(image_shapes)
    return Case(
        GlobalMaxPool2d(),
        with_ties_and_specials(draw, make(*shape)) if specials else make(*shape),
        make,
        forward=oracles.global_max_pool2d,
        backward=alone(oracles.global_max_pool2d_backward),
    )


@st.composite
def avg_pool2d(draw, numbers=reals):
    (window, shape), make, count_include_pad = draw(pooled()), draw(numbers), draw(st.booleans())
    return Case(
        AvgPool2d(**window._asdict(), count_include_pad=count_include_pad),
        make(*shape),
        make,
        forward=lambda x: oracles.avg_pool2d(x, window, count_include_pad),
        backward=alone(oracles.avg_pool2d_backward, window, count_include_pad),
    )


@st.composite
def local_response_norm(draw, numbers=reals):
    make, groups = draw(numbers), draw(st.integers(1, 3))
    norm = oracles.Norm(
        size=draw(st.integers(1, 9)),
        alpha=draw(st.sampled_from([0.0, 1e-4, 0.5, 1.5])),
        beta=draw(st.sampled_from([0.5, 0.75, 1.0, 1.3])),
        k=draw(st.sampled_from([0.7, 1.0, 2.0])),
        average=draw(st.booleans()),
        groups=groups,
    )
    return Case(
        LocalResponseNorm(**norm._asdict()),
        make(*draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)), groups * draw(st.integers(1, 7))),
        make,
        forward=lambda x: oracles.local_response_norm(x, norm),
        backward=alone(oracles.local_response_norm_backward, norm),
    )


@st.composite
def batch_norm2d(draw, numbers=reals):
    make, shape = draw(numbers), draw(image_shapes.filter(lambda shape: np.prod(shape[:3]) > 1))
    eps, momentum = draw(st.sampled_from([1e-5, 1e-3, 0.5])), draw(st.sampled_from([0.0, 0.1, 0.3, 1.0]))
    layer, given = filled(BatchNorm2d(shape[-1], eps, momentum), make)
    layer.running_mean.value, layer.running_var.value = make(shape[-1]), make(shape[-1]) ** 2
    x, gamma, beta = make(*shape), given["gamma"], given["beta"]
    running = exact(layer.running_mean.value), exact(layer.running_var.value)
    _, var = oracles.batch_statistics(exact(x))

    def backward(dy: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, Gradients]:
        dx, dgamma, dbeta = oracles.batch_norm_backward(dy, x, gamma, eps)
        return dx, {"gamma": dgamma, "beta": dbeta}

    return Case(
        layer,
        x,
        make,
        forward=lambda x: oracles.batch_norm(x, gamma, beta, *oracles.batch_statistics(x), eps),
        backward=backward,
        inference=lambda x: oracles.batch_norm(x, gamma, beta, *running, eps),
        buffers=dict(
            zip(
                ("running_mean", "running_var"),
                oracles.running_statistics(exact(x), *running, momentum),
                strict=True,
            )
        ),
        condition=np.abs(x).max() / np.sqrt(min(*var, *running[1]) + eps),
    )


@st.composite
def dropout(draw, numbers=reals, p=probabilities):
    make, shape, p = draw(numbers), draw(shapes), draw(p)
    seed, sample = draw(st.integers(0, 2**64 - 1)), draw(st.sampled_from([0, 1, 1000, 2**32 - 10]))
    return Case(
        Dropout(p),
        make(*shape),
        make,
        forward=lambda x: oracles.dropout(x, p, seed, sample),
        backward=alone(oracles.dropout_backward, p, seed, sample),
        inference=lambda x: x,
        key=Key(seed, sample),
    )


def plain(
    kind: type[Layer], forward: oracles.Forward, backward: Callable[..., np.ndarray], shapes: Any = shapes
) -> Callable[..., st.SearchStrategy[Case]]:
    """The function that draws inputs, some of them round, for a layer without settings."""

    @st.composite
    def strategy(draw, numbers=reals):
        make = draw(numbers)
        x = make(*draw(shapes))
        return Case(kind(), np.round(x) if draw(st.booleans()) else x, make, forward, alone(backward))

    return strategy


# --- layers of layers -------------------------------------------------------------------------------------------

Part = tuple[Layer, oracles.Forward, oracles.Backward]

IDENTITY: Part = Sequential(), lambda x: x, lambda dy, x: (dy, {})
CURVED: tuple[Part, ...] = (
    (Tanh(), oracles.tanh, alone(oracles.tanh_backward)),
    (Sigmoid(), oracles.sigmoid, alone(oracles.sigmoid_backward)),
)


@st.composite
def part(draw, make: Numbers, inputs: int, outputs: int) -> Part:
    """A small layer from `inputs` to `outputs` features, with its oracle; linear where the numbers are whole."""
    if inputs == outputs and draw(st.booleans()):
        return draw(st.sampled_from([IDENTITY] if make.whole else [IDENTITY, *CURVED]))
    layer, given = filled(Linear(inputs, outputs, bias=not make.whole), make)
    weight, bias = given["weight"], given.get("bias")
    return (
        layer,
        lambda x: oracles.linear(x, weight, bias),
        lambda dy, x: of_products(oracles.linear_backward(dy, x, weight), bias),
    )


def container(kind: type[Layer], forward: Any, backward: Any) -> Callable[..., st.SearchStrategy[Case]]:
    """The function that draws a `Sequential`, `Sum` or `Concat` of up to three parts."""

    @st.composite
    def strategy(draw, numbers=reals):
        make, widths = draw(numbers), draw(st.lists(sizes, min_size=2, max_size=4))
        ends = {
            Sequential: list(itertools.pairwise(widths)),
            Sum: [(widths[0], widths[-1]) for _ in widths[1:]],
            Concat: [(widths[0], width) for width in widths[1:]],
        }
        parts, forwards, backwards = zip(*(draw(part(make, *pair)) for pair in ends[kind]), strict=True)

        def by_path(dy: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, Gradients]:
            dx, inner = backward(dy, x, forwards, backwards)
            return dx, {f"{i}.{name}": gradient for i, own in enumerate(inner) for name, gradient in own.items()}

        layer = kind(*copy.deepcopy(parts))
        return Case(layer, make(draw(sizes), widths[0]), make, lambda x: forward(x, forwards), by_path)

    return strategy


LAYERS: dict[str, Callable[..., st.SearchStrategy[Case]]] = {
    "AvgPool2d": avg_pool2d,
    "BatchNorm2d": batch_norm2d,
    "Concat": container(Concat, oracles.concat, oracles.concat_backward),
    "Conv2d": conv2d,
    "Dropout": dropout,
    "Flatten": plain(Flatten, oracles.flatten, oracles.flatten_backward),
    "GlobalAvgPool2d": plain(
        GlobalAvgPool2d, oracles.global_avg_pool2d, oracles.global_avg_pool2d_backward, image_shapes
    ),
    "GlobalMaxPool2d": global_max_pool2d,
    "Linear": linear,
    "LocalResponseNorm": local_response_norm,
    "LogSoftmax": plain(LogSoftmax, oracles.log_softmax, oracles.log_softmax_backward),
    "MaxPool2d": max_pool2d,
    "ReLU": plain(ReLU, oracles.relu, oracles.relu_backward),
    "Sequential": container(Sequential, oracles.sequential, oracles.sequential_backward),
    "Sigmoid": plain(Sigmoid, oracles.sigmoid, oracles.sigmoid_backward),
    "Softmax": plain(Softmax, oracles.softmax, oracles.softmax_backward),
    "Sum": container(Sum, oracles.add, oracles.add_backward),
    "Tanh": plain(Tanh, oracles.tanh, oracles.tanh_backward),
}

# Those of which backward is the transpose of forward, at settings and numbers where nothing is rounded. Max pooling and
# ReLU select, and are linear as long as they select the same. Averages are over counts that divide 144.
LINEAR: dict[str, st.SearchStrategy[Case]] = {
    "AvgPool2d": avg_pool2d(wholes),
    "Concat": LAYERS["Concat"](wholes),
    "Conv2d": conv2d(wholes, biased=st.just(False)),
    "Dropout": dropout(wholes, p=st.just(0.5)),
    "Flatten": LAYERS["Flatten"](wholes),
    "GlobalAvgPool2d": LAYERS["GlobalAvgPool2d"](wholes).filter(lambda case: 144 % np.prod(case.x.shape[1:3]) == 0),
    "GlobalMaxPool2d": global_max_pool2d(wholes, specials=False),
    "Linear": linear(wholes, biased=st.just(False)),
    "MaxPool2d": max_pool2d(wholes, specials=False),
    "ReLU": LAYERS["ReLU"](wholes),
    "Sequential": LAYERS["Sequential"](wholes),
    "Sum": LAYERS["Sum"](wholes),
}


# --- losses: each with outputs, targets, and the oracle's value and gradient ------------------------------------

reductions = st.sampled_from(["mean", "sum", "none"])


@st.composite
def cross_entropies(draw, make: Numbers):
    *places, C = draw(shapes)
    ignore_index = draw(st.sampled_from([-100, 0, 255]))
    some_labels = draw(st.lists(st.sampled_from([*range(C), ignore_index]), min_size=1, max_size=9))
    settings = {
        "weight": draw(st.none() | st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=C, max_size=C)),
        "label_smoothing": draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])),
        "ignore_index": ignore_index,
        "reduction": draw(reductions),
    }
    logits, labels = make(*places, C) * draw(st.sampled_from([1, 10])), np.resize(some_labels, places)
    return SoftmaxCrossEntropy(**settings), logits, labels, oracles.cross_entropy(exact(logits), labels, **settings)


@st.composite
def squared_errors(draw, make: Numbers):
    shape, reduction = draw(st.lists(sizes, min_size=1, max_size=4)), draw(reductions)
    outputs, targets = make(*shape), make(*shape)
    answer = oracles.mean_squared_error(exact(outputs), exact(targets), reduction)
    return MeanSquaredError(reduction), outputs, targets, answer


LOSSES = {"MeanSquaredError": squared_errors, "SoftmaxCrossEntropy": cross_entropies}


# --- optimisers: each with its settings, and the rule that changes one number -----------------------------------

# w, g, the running numbers, the step 1, 2, …, lr, weight_decay → w and the running numbers
Rule = Callable[[float, float, list[float], int, float, float], tuple[float, ...]]


@st.composite
def sgds(draw) -> tuple[dict[str, Any], Rule, int]:
    momentum = draw(st.sampled_from([0.0, 0.5, 0.9]))
    nesterov = momentum > 0 and draw(st.booleans())
    update = draw(st.sampled_from(["paper", "torch"]))

    def rule(w: float, g: float, running: list[float], t: int, lr: float, decay: float) -> tuple[float, ...]:
        if update == "torch":
            return oracles.sgd_torch(w, g, *running, lr, momentum, decay, nesterov)
        return (oracles.nesterov_paper if nesterov else oracles.sgd_paper)(w, g, *running, lr, momentum, decay)

    return {"update": update, "momentum": momentum, "nesterov": nesterov}, rule, 1


@st.composite
def adamws(draw) -> tuple[dict[str, Any], Rule, int]:
    betas, eps = draw(st.sampled_from([(0.9, 0.999), (0.0, 0.5), (0.5, 0.0)])), draw(st.sampled_from([1e-8, 1e-2]))

    def rule(w: float, g: float, running: list[float], t: int, lr: float, decay: float) -> tuple[float, ...]:
        return oracles.adamw(w, g, *running, t, lr, betas, eps, decay)

    return {"betas": betas, "eps": eps}, rule, 2


OPTIMIZERS = {"AdamW": adamws, "SGD": sgds}


# --- schedules: each with the oracle's rate of a step -----------------------------------------------------------

base_lrs, counts, gammas = st.floats(0, 2), st.integers(1, 40), st.sampled_from([0.1, 0.5, 1.0])


@st.composite
def constants(draw):
    base_lr = draw(base_lrs)
    return schedules.Constant(base_lr), lambda step: base_lr


@st.composite
def step_decays(draw):
    base_lr, step_size, gamma = draw(base_lrs), draw(counts), draw(gammas)
    return schedules.Step(base_lr, step_size, gamma), lambda step: oracles.step_decay(step, base_lr, step_size, gamma)


@st.composite
def cosines(draw):
    base_lr, steps, final_lr = draw(base_lrs), draw(counts), draw(st.sampled_from([0.0, 0.001]))
    return schedules.Cosine(base_lr, steps, final_lr), lambda step: oracles.cosine(step, base_lr, steps, final_lr)


@st.composite
def plateaus(draw):
    base_lr, gamma, patience, drops = draw(base_lrs), draw(gammas), draw(st.integers(1, 4)), draw(st.integers(0, 3))
    steps = sorted(draw(st.lists(st.integers(0, 50), unique=True, max_size=12)))
    errors = [(step, draw(st.sampled_from([0.1, 0.2, 0.3]))) for step in steps]
    schedule = schedules.Plateau(base_lr, gamma, patience, drops)
    for step, error in errors:
        schedule = schedule.observed(step, error)
    return schedule, lambda step: oracles.plateau(step, base_lr, gamma, patience, drops, errors)


@st.composite
def warm_ups(draw):
    (after, oracle), steps = draw(constants() | step_decays() | cosines() | plateaus()), draw(counts)
    return schedules.WarmUp.before(after, steps), lambda step: oracles.warm_up(step, oracle(step), steps)


SCHEDULES = {"Constant": constants, "Cosine": cosines, "Plateau": plateaus, "Step": step_decays, "WarmUp": warm_ups}
