"""How exact the engine is: float32 against float64, long sums against exact ones, and numbers at the end of the range.

Bounds are in units of u = 2⁻²⁴ ≈ 6·10⁻⁸, the relative rounding error of float32. A sum of n numbers loses up to n·u,
typically √n·u, where it is formed in float32, and nothing where it is formed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minidl import Key, settings
from minidl.catalogue import LAYERS, LOSSES
from minidl.layer import Layer, Shape
from minidl.layers import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    Linear,
    LocalResponseNorm,
    LogSoftmax,
    MaxPool2d,
    Parameter,
    Sigmoid,
    Softmax,
    Tanh,
)
from minidl.losses import MeanSquaredError, SoftmaxCrossEntropy
from minidl.ops.channel_sum import channel_dot, channel_sum
from minidl.optim import SGD, AdamW
from minidl.schedules import Constant, Cosine, Plateau, Schedule, Step, WarmUp

KEY = Key(11)
U = 2.0**-24
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def passes(layer: Layer, x: np.ndarray, dy: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """y, dx, the gradients of the parameters and the buffers after one training pass; dy is all ones unless given."""
    y, cache = layer.forward(x, train=True, key=KEY)
    dx = layer.backward(np.ones_like(y) if dy is None else dy, cache)
    gradients = {f"d{name}": parameter.grad for name, parameter in layer.parameters().items()}
    return {"y": y, "dx": dx, **gradients, **{name: buffer.value for name, buffer in layer.buffers().items()}}


def assert_close(single: Any, double: Any, bound: float, name: str = "") -> None:
    """No element differs by more than the bound, relative to the largest."""
    single, double = np.asarray(single), np.asarray(double)
    assert (single.dtype, double.dtype) == ("float32", "float64"), name
    error, largest = np.abs(single - double).max(), np.abs(double).max()
    assert error <= bound * largest, f"{name}: {error / largest:.1e} of the largest value"


# --- float32 against float64 ------------------------------------------------------------------------------------------

# Where sums are long; the numbers have the mean 1, so that terms do not cancel.
LONG: dict[str, tuple[Callable[[], Layer], Shape]] = {
    "Conv2d: 256 channels": (lambda: Conv2d(256, 64, 3, padding=1), (2, 13, 13, 256)),
    "Conv2d: AlexNet's first": (lambda: Conv2d(3, 32, 11, stride=4), (1, 227, 227, 3)),
    "Linear: AlexNet's fc6": (lambda: Linear(9216, 64), (16, 9216)),
    "Linear: a million inputs": (lambda: Linear(1_000_000, 2), (2, 1_000_000)),
    "MaxPool2d: AlexNet's first": (lambda: MaxPool2d(3, stride=2), (1, 55, 55, 96)),
    "AvgPool2d: 4096 taps": (lambda: AvgPool2d(64), (2, 128, 128, 4)),
    "GlobalAvgPool2d: four million pixels": (GlobalAvgPool2d, (1, 2000, 2000, 2)),
    "GlobalMaxPool2d: four million pixels": (GlobalMaxPool2d, (1, 2000, 2000, 2)),
    "LocalResponseNorm: AlexNet's first": (LocalResponseNorm, (1, 55, 55, 96)),
    "BatchNorm2d: 200,704 numbers a channel": (lambda: BatchNorm2d(8), (64, 56, 56, 8)),
    "Softmax: 100,000 classes": (Softmax, (2, 100_000)),
    "LogSoftmax: 100,000 classes": (LogSoftmax, (2, 100_000)),
}

# Its true value is 0, so there is no largest value to compare with.
ZERO = {"Sequential: bias before BatchNorm2d": "d0.bias"}


@pytest.mark.parametrize("line", [*LAYERS, *LONG])
def test_float32_agrees_with_float64(line, kernels):
    """Outputs, gradients and running statistics to 10⁻⁵ of the largest value, some 170 u: 5 to 50 times what is seen.

    Both start from the same float32 numbers, so that signs and winners are the same. Convolutions go by im2col: what
    Winograd's algorithm may lose has bounds of its own, which its tests hold.
    """
    make, shape = {**LAYERS, **LONG}[line]
    generator = np.random.default_rng(3)
    x = (generator.standard_normal(shape) + (line in LONG)).astype("float32")
    layer = make()
    state = {name: value.astype("float32") for name, value in layer.to(dtype="float32").state_dict().items()}
    dy = generator.standard_normal(layer(x).shape).astype("float32")
    with settings(conv2d="im2col"):
        single = passes(layer, x, dy)
    double_layer = make().to(dtype="float64")
    double_layer.load_state_dict(state)
    double = passes(double_layer, x.astype("float64"), dy.astype("float64"))
    for name in single:
        if name != ZERO.get(line):
            assert_close(single[name], double[name], 1e-5, name)


@pytest.mark.parametrize("line", LOSSES)
def test_losses_in_float32_agree_with_float64(line):
    """Value and gradient to 10⁻⁵ of the largest value."""
    make, shape, targets = LOSSES[line]
    outputs = np.random.default_rng(3).standard_normal(shape).astype("float32")
    results = []
    for dtype in ("float32", "float64"):
        wanted = np.ones(targets, dtype) if isinstance(targets, tuple) else np.array(targets)
        value, cache = make().forward(outputs.astype(dtype), wanted)
        results.append((value, make().backward(cache)))
    for single, double in zip(*results, strict=True):
        assert_close(single, double, 1e-5)


# --- sums over 10⁷ numbers --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many() -> np.ndarray:
    """Ten million float32 numbers between 0 and 1."""
    return np.random.default_rng(0).random(10_000_000, dtype="float32")


@pytest.fixture(scope="module")
def pixels(many: np.ndarray) -> np.ndarray:
    """The same numbers forwards and backwards as the two channels of an image: of one alone, NumPy sums pairwise."""
    return np.stack([many, many[::-1]], axis=-1).reshape(1, 2500, 4000, 2)


@pytest.fixture(scope="module")
def total(many: np.ndarray) -> float:
    """Their exact sum."""
    return math.fsum(many.tolist())


@pytest.fixture(scope="module")
def total_of_squares(many: np.ndarray) -> float:
    """The exact sum of their squares: the square of a float32 is a float64."""
    return math.fsum((many.astype("float64") ** 2).tolist())


def assert_rounded_once(values: np.ndarray, exact: float) -> None:
    """Each is the float32 number nearest to the exact one, or its neighbour."""
    assert values.dtype == "float32"
    assert np.abs(values.astype("float64") - exact).max() <= np.spacing(np.float32(exact))


def test_channel_sums_of_ten_million_numbers(kernels, pixels, total, total_of_squares):
    """Formed in float64 and rounded once, so to the last digit of float32; in float32 the fourth would be wrong."""
    assert_rounded_once(channel_sum(pixels), total)
    assert_rounded_once(channel_dot(pixels, np.ones_like(pixels)), total)
    squares = channel_dot(pixels, pixels)  # each product is rounded, then summed
    np.testing.assert_allclose(squares, total_of_squares, rtol=2 * U)


def test_global_average_of_ten_million_pixels(kernels, pixels, total):
    """GlobalAvgPool2d to the last digit of float32."""
    assert_rounded_once(GlobalAvgPool2d()(pixels), total / 10_000_000)


def test_batch_statistics_of_ten_million_numbers(kernels, pixels, total, total_of_squares):
    """BatchNorm2d: the mean to the last digit, the variance to 4 u; it is no difference of two large sums."""
    layer, n = BatchNorm2d(2, momentum=1), 10_000_000
    layer.forward(pixels, train=True)
    assert_rounded_once(layer.running_mean.value, total / n)
    np.testing.assert_allclose(layer.running_var.value, (total_of_squares - total**2 / n) / (n - 1), rtol=4 * U)


def test_bias_gradient_over_ten_million_pixels(kernels, pixels, total):
    """Conv2d's dbias = Σ dy to the last digit; its dweight is a matrix product in float32, right to √n·u = 2·10⁻⁴."""
    layer = Conv2d(1, 2, 1)
    _, cache = layer.forward(np.ones_like(pixels[..., :1]), train=True)
    layer.backward(pixels, cache, input_gradient=False)
    assert_rounded_once(layer.bias.grad, total)
    np.testing.assert_allclose(layer.weight.grad, np.full((1, 1, 1, 2), total), rtol=math.sqrt(1e7) * U)


def test_linear_with_a_million_inputs(kernels, many):
    """A float32 matrix product of a million terms of one sign; libraries sum in blocks, which keeps it to 100 u."""
    x, layer = many[:1_000_000].reshape(1, -1), Linear(1_000_000, 1)
    layer.weight.value = many[-1_000_000:].reshape(-1, 1)
    exact = math.fsum((x[0].astype("float64") * layer.weight.value[:, 0].astype("float64")).tolist())
    assert layer(x).item() == pytest.approx(exact, rel=100 * U)


def test_mean_squared_error_of_ten_million_numbers(many, total_of_squares):
    """NumPy sums pairwise, which loses log₂ n · u ≈ 24 u at most; so value and sum are right to 30 u."""
    for reduction, exact in ("mean", total_of_squares / many.size), ("sum", total_of_squares):
        value, _ = MeanSquaredError(reduction).forward(many, np.zeros_like(many))
        assert value == pytest.approx(exact, rel=30 * U)


def test_cross_entropy_of_a_million_samples(many):
    """The mean over a million samples of ten classes to 30 u."""
    logits, labels = many.reshape(-1, 10), np.arange(1_000_000) % 10
    shifted = logits.astype("float64") - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
    value, cache = SoftmaxCrossEntropy().forward(logits, labels)
    assert value == pytest.approx(math.fsum(losses.tolist()) / len(losses), rel=30 * U)
    assert np.abs(SoftmaxCrossEntropy().backward(cache).sum(axis=1)).max() <= 10 * U / len(labels)


# --- softmax and its kin ----------------------------------------------------------------------------------------------

EXTREME = [[1e4, 0, -1e4], [-1e4, -1e4, -1e4], [1e4, 1e4, -1e4], [0.25, 0.25, 0.25], [-np.inf, 0, 0]]
THIRD, INF = 1 / 3, np.inf
PROBABILITIES = np.array([[1, 0, 0], [THIRD] * 3, [0.5, 0.5, 0], [THIRD] * 3, [0, 0.5, 0.5]])
LN2, LN3 = math.log(2), math.log(3)
LOGARITHMS = np.array(
    [[0, -1e4, -2e4], [-LN3] * 3, [-LN2, -LN2, -2e4 - LN2], [-LN3] * 3, [-INF, -LN2, -LN2]]
)  # fmt: skip
DY = np.array([1.0, -2.0, 4.0])


@each_dtype
def test_softmax_of_extreme_logits(kernels, dtype):
    """Softmax at ±10⁴, −∞ and equal logits: probabilities and gradient to 4 u, without a warning.

    The largest logit becomes 0 and the others negative, so nothing overflows, and what underflows is 0 as it should be.
    """
    found = passes(Softmax(), np.array(EXTREME, dtype), np.tile(DY, (5, 1)).astype(dtype))
    np.testing.assert_allclose(found["y"], PROBABILITIES, rtol=4 * U)
    expected = PROBABILITIES * (DY - (PROBABILITIES @ DY)[:, None])
    np.testing.assert_allclose(found["dx"], expected, rtol=4 * U, atol=4 * U)


@each_dtype
def test_log_softmax_of_extreme_logits(kernels, dtype):
    """LogSoftmax at ±10⁴, −∞ and equal logits, to 4 u: it takes no logarithm of an underflown probability."""
    found = passes(LogSoftmax(), np.array(EXTREME, dtype), np.tile(DY, (5, 1)).astype(dtype))
    np.testing.assert_allclose(found["y"], LOGARITHMS, rtol=4 * U)
    np.testing.assert_allclose(found["dx"], DY - PROBABILITIES * DY.sum(), rtol=4 * U, atol=4 * U)


@each_dtype
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_extreme_logits(dtype, smoothing):
    """SoftmaxCrossEntropy at ±10⁴ and equal logits, for every label: value to 4 u, gradient p − q to 8 u."""
    logits = np.array(EXTREME[:4], dtype)
    loss = SoftmaxCrossEntropy(label_smoothing=smoothing, reduction="none")
    for label in range(3):
        value, cache = loss.forward(logits, np.full(4, label))
        q = (1 - smoothing) * (np.arange(3) == label) + smoothing / 3
        np.testing.assert_allclose(value, -(LOGARITHMS[:4] @ q), rtol=4 * U)
        np.testing.assert_allclose(loss.backward(cache), PROBABILITIES[:4] - q, rtol=8 * U, atol=8 * U)


@each_dtype
def test_a_class_ruled_out_by_minus_infinity(dtype):
    """SoftmaxCrossEntropy with a logit of −∞, to 4 u: as without that class; infinite where it is the label."""
    logits, loss = np.array([[0, -INF, 1], [0, -INF, 1]], dtype), SoftmaxCrossEntropy(reduction="none")
    value, cache = loss.forward(logits, np.array([0, 1]))
    np.testing.assert_allclose(value, [math.log(1 + math.e), INF], rtol=4 * U)
    p = np.array([1, 0, math.e]) / (1 + math.e)
    np.testing.assert_allclose(loss.backward(cache), [p - [1, 0, 0], p - [0, 1, 0]], rtol=4 * U, atol=4 * U)


@each_dtype
@pytest.mark.parametrize("row", [[-INF, -INF], [INF, 0.0], [np.nan, 0.0]])
def test_what_has_no_probabilities_shows_as_nan(dtype, row):
    """Softmax, its logarithm and the loss: ∞ − ∞ has no value, and NaN is what training looks for (as in PyTorch)."""
    logits = np.array([row], dtype)
    with np.errstate(invalid="ignore"):
        assert np.isnan(Softmax()(logits)).any()
        assert np.isnan(LogSoftmax()(logits)).any()
        assert np.isnan(SoftmaxCrossEntropy().forward(logits, np.array([0]))[0])


# --- units far out ----------------------------------------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize(("layer", "values"), [(Sigmoid(), (0, 0.5, 1)), (Tanh(), (-1, 0, 1))], ids=["Sigmoid", "Tanh"])
def test_saturated_units(dtype, layer, values):
    """Sigmoid and Tanh: their limits to u from 10² on, exactly at ±∞; the gradient fades to 0; nothing overflows."""
    x = np.array([[-INF, -1e4, -100, 0, 100, 1e4, INF]], dtype)
    found = passes(layer, x)
    low, middle, high = values
    np.testing.assert_allclose(found["y"], [[low, low, low, middle, high, high, high]], rtol=U, atol=1e-30)
    slope = 0.25 if isinstance(layer, Sigmoid) else 1
    np.testing.assert_allclose(found["dx"], [[0, 0, 0, slope, 0, 0, 0]], atol=1e-30)
    assert np.isnan(layer(np.array([[np.nan]], dtype))).all()


@each_dtype
def test_a_small_sigmoid_keeps_its_digits(dtype):
    """Sigmoid at −80 is e⁻⁸⁰ to 200 u, as it is computed as e^x/(1 + e^x); 1 − 1/(1 + e^x) would be 0."""
    assert Sigmoid()(np.array([[-80.0]], dtype)).item() == pytest.approx(math.exp(-80), rel=200 * U)


# --- local response normalisation -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1e4, 1e10, 1e15])
def test_local_response_norm_of_large_activations(kernels, size):
    """LocalResponseNorm up to 10¹⁵ in float32 against float64, y and dx to 10⁻⁵.

    s^(−β−1) alone would underflow from 10¹³ on, and the second term of the gradient with it: so it is taken in two
    steps. Beyond 10¹⁶ that term itself is too small for float32.
    """
    x = (size * np.random.default_rng(0).uniform(0.5, 1, (2, 3, 3, 8))).astype("float32")
    single, double = passes(LocalResponseNorm(), x), passes(LocalResponseNorm(), x.astype("float64"))
    for name in single:
        assert np.abs(single[name]).min() > 0
        assert_close(single[name], double[name], 1e-5, name)


def test_local_response_norm_near_the_end_of_the_range(kernels):
    """LocalResponseNorm at 10²⁰ in float32: y to 10⁻⁵, as s = 10³⁷ fits where scale·x·x is taken from the left.

    x² alone would overflow, and y be 0, as PyTorch's is.
    """
    x = (1e20 * np.random.default_rng(0).uniform(0.5, 1, (2, 3, 3, 8))).astype("float32")
    assert_close(LocalResponseNorm()(x), LocalResponseNorm()(x.astype("float64")), 1e-5)


def test_local_response_norm_beyond_the_range(kernels):
    """LocalResponseNorm where s overflows: y = x·s^(−β) is 0, the limit for β = ¾, and so is dx; never NaN."""
    x = np.full((1, 2, 2, 8), 1e30, "float32")
    with np.errstate(over="ignore"):
        found = passes(LocalResponseNorm(), x)
    assert not found["y"].any()
    assert not found["dx"].any()


@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-40, 1e-30, 1e-10])
def test_local_response_norm_of_tiny_activations(kernels, size):
    """LocalResponseNorm of denormal, tiny and zero activations: s = k to u, so y = x·k^(−β) and dx = dy·k^(−β).

    To 8 u, or for denormals to their spacing of 1.4·10⁻⁴⁵.
    """
    x = np.full((1, 2, 2, 8), size, "float32")
    found = passes(LocalResponseNorm(), x)
    np.testing.assert_allclose(found["y"], x * 2**-0.75, rtol=8 * U, atol=1.5e-45)
    np.testing.assert_allclose(found["dx"], np.full(x.shape, 2**-0.75), rtol=8 * U)


# --- batch normalisation ----------------------------------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1e4, 1e30])
def test_batch_norm_of_a_constant_channel(kernels, dtype, value):
    """BatchNorm2d where the variance is 0: y = beta exactly, since the mean in two numbers is exact.

    Else what is left of x would be noise, and be normalised to a deviation of up to 1. By the formula with x̂ = 0,

        dx = gamma/√eps · (dy − mean dy),    dgamma = 0,    dbeta = Σ dy

    to 30 u: dy − mean dy loses a digit or two.
    """
    layer = BatchNorm2d(2).to(dtype=dtype)
    layer.gamma.value, layer.beta.value = np.array([2, 3], dtype), np.array([0.5, -4], dtype)
    dy = np.random.default_rng(0).standard_normal((3, 4, 4, 2)).astype(dtype)
    found = passes(layer, np.full(dy.shape, value, dtype), dy)
    np.testing.assert_array_equal(found["y"], np.broadcast_to(layer.beta.value, dy.shape))
    assert not found["dgamma"].any()
    precise = dy.astype("float64")
    np.testing.assert_allclose(found["dbeta"], precise.sum(axis=(0, 1, 2)), rtol=4 * U)
    expected = np.array([2, 3]) / math.sqrt(1e-5) * (precise - precise.mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(found["dx"], expected, rtol=4 * U, atol=30 * U * np.abs(expected).max())
    assert found["running_var"] == pytest.approx(0.9)


def test_the_running_mean_is_the_mean_rounded_once(kernels):
    """BatchNorm2d in float32, 1000 channels of 105 numbers: to half a spacing of float32, and a little."""
    layer = BatchNorm2d(1000, momentum=1.0)
    x = np.random.default_rng(0).normal(3, 1, (3, 5, 7, 1000)).astype("float32")
    layer.forward(x, train=True)
    exact = x.mean(axis=(0, 1, 2), dtype="float64")
    assert (np.abs(layer.running_mean.value - exact) <= 0.55 * np.spacing(exact.astype("float32"))).all()


def test_batch_norm_of_a_large_mean_and_a_small_deviation(kernels):
    """BatchNorm2d at mean 10⁴ and deviation 10⁻² in float32: to 10⁻⁵ of float64, as anywhere else.

    Float32 numbers near 10⁴ are 2⁻¹⁰ apart, so a mean in one number is off by up to 2⁻¹¹, and with it y by 0.05 of a
    deviation. In two numbers it is off by nothing to speak of: x − mean is exact, and what is left is subtracted too.
    """
    x = (1e4 + 1e-2 * np.random.default_rng(3).standard_normal((8, 56, 56, 4))).astype("float32")
    dy = np.random.default_rng(4).standard_normal(x.shape).astype("float32")
    single = passes(BatchNorm2d(4), x, dy)
    double = passes(BatchNorm2d(4).to(dtype="float64"), x.astype("float64"), dy.astype("float64"))
    for name in single:
        assert_close(single[name], double[name], 1e-5, name)


# --- dropout ----------------------------------------------------------------------------------------------------------


@each_dtype
def test_dropout_that_keeps_one_in_ten_thousand(kernels, dtype):
    """Dropout(0.9999): of four million ones 400 ± 5·20 stay, each as 10⁴ to 2 u; the mean stays 1 within five sigma.

    An element is dropped where a 32-bit word is below ⌊p·2³²⌋, so the share kept is off by up to 2⁻³²/(1 − p), here
    2·10⁻⁶ of itself.
    """
    x, p, kept = np.ones((4, 1_000_000), dtype), 0.9999, 400
    y, _ = Dropout(p).forward(x, train=True, key=KEY)
    assert abs(np.count_nonzero(y) - kept) <= 5 * math.sqrt(kept)
    np.testing.assert_allclose(y[y != 0], 1e4, rtol=2 * U)
    assert abs(y.mean() - 1) <= 5 / math.sqrt(kept)


@pytest.mark.parametrize("p", [1e-12, 2.0**-33])
def test_a_dropout_that_hardly_ever_drops(kernels, p):
    """Dropout below 2⁻³² drops nothing: ⌊p·2³²⌋ is 0."""
    x = np.ones((2, 10_000), "float32")
    np.testing.assert_array_equal(Dropout(p).forward(x, train=True, key=KEY)[0], x)


# --- optimisers and schedules -----------------------------------------------------------------------------------------


def stepped(make: Callable[..., Any], start: float, gradients: list[float], dtype: str) -> np.ndarray:
    """Where a parameter is after steps with these gradients, at a rate of 0.1."""
    parameter = Parameter(np.array([start], dtype))
    optimizer = make({"w": parameter})
    for gradient in gradients:
        parameter.grad = np.array([gradient], dtype)
        optimizer.step(0.1)
    return parameter.value


def adamw(parameters: dict[str, Parameter]) -> AdamW:
    return AdamW(parameters, weight_decay=0.25)


@each_dtype
def test_adamw_without_a_gradient_only_decays(kernels, dtype):
    """AdamW where all gradients are 0: 0/(√0 + eps) is 0, so w ← w·(1 − lr·λ), to 3 u for three steps."""
    np.testing.assert_allclose(stepped(adamw, 2.0, [0.0] * 3, dtype), 2 * (1 - 0.1 * 0.25) ** 3, rtol=3 * U)


@pytest.mark.parametrize("gradient", [1e-10, 1e-20, 1e-30, 1e-42])
def test_adamw_of_tiny_gradients(kernels, gradient):
    """AdamW in float32 against float64 to 10⁻⁵, for a denormal gradient to its few digits.

    g² underflows to 0, but √v is then far below eps, and the step lr·g/eps that is left is right.
    """
    single, double = (stepped(adamw, 0.0, [gradient] * 3, dtype) for dtype in ("float32", "float64"))
    assert double[0] < 0
    np.testing.assert_allclose(single, double, rtol=1e-5 if gradient > 1e-38 else 1e-2)


@pytest.mark.parametrize("update", ["paper", "torch"])
@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_of_denormal_gradients(kernels, update, nesterov):
    """SGD in float32 at 10⁻⁴⁰: nothing is flushed to 0; four steps are right to 16 times the spacing of 1.4·10⁻⁴⁵."""

    def sgd(parameters: dict[str, Parameter]) -> SGD:
        return SGD(parameters, 0.9, nesterov=nesterov, update=update)

    single, double = (stepped(sgd, 0.0, [1e-40] * 4, dtype) for dtype in ("float32", "float64"))
    assert single[0] != 0
    np.testing.assert_allclose(single, double, rtol=0, atol=16 * 1.4e-45)


SCHEDULES: dict[str, tuple[Schedule, float, float]] = {  # with the rates of step 0 and of the far end
    "Constant": (Constant(0.3), 0.3, 0.3),
    "Step": (Step(0.3, step_size=1), 0.3, 0.0),
    "Cosine": (Cosine(0.3, steps=7, final_lr=0.001), 0.3, 0.001),
    "Plateau": (Plateau(0.3, patience=1).observed(5, 0.5).observed(10, 0.5), 0.3, 0.03),
    "WarmUp": (WarmUp.before(Constant(0.3), 4), 0.075, 0.3),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_at_both_ends(name):
    """The rate of step 0 and of step 10¹², to the last digit, between them never above base_lr or below the end."""
    schedule, first, last = SCHEDULES[name]
    assert schedule.lr(0) == pytest.approx(first, rel=1e-15)
    assert schedule.lr(10**12) == pytest.approx(last, rel=1e-15)
    assert all(min(first, last) <= schedule.lr(step) <= schedule.base_lr for step in range(1000))
