"""Every layer, loss and update rule a second time: loops over single numbers, straight from the published equations.

This is what minidl is held against. It imports nothing of minidl, and NumPy only holds the numbers: nothing is left to
believe but the equation in each docstring and the loop under it. A backward pass follows the chain rule term by term,
where the engine has a closed form; it takes x rather than what the engine happens to keep.

Images are (N, H, W, C), and all arrays float64. `d<name>` is ∂loss/∂<name>. A function `<name>_backward` returns dx,
and behind it the gradients of the parameters.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

Index = tuple[int, ...]


def everywhere(shape: Sequence[int]) -> Iterator[Index]:
    """Every index of an array of this shape, in row-major order."""
    return itertools.product(*map(range, shape))


def elementwise(function: Callable[..., float], *arrays: np.ndarray) -> np.ndarray:
    """function(a, b, …) at each place of arrays of one shape."""
    result = np.zeros(arrays[0].shape)
    for place in everywhere(result.shape):
        result[place] = function(*(array[place] for array in arrays))
    return result


# --- sliding windows --------------------------------------------------------------------------------------------


class Window(NamedTuple):
    """A window by the arguments of PyTorch's layers, with padding ((top, bottom), (left, right))."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int]
    rounding: str


def starts(window: Window, axis: int, n: int) -> list[int]:
    """Where the window starts along an axis of n pixels, counted from the first pixel.

    "floor": wherever it lies wholly in the padded image. "ceil": once more where that leaves some of the padded image
    unseen, unless it would then start behind the last pixel.
    Source: Dumoulin and Visin 2016, arXiv 1603.07285; "ceil" is `ceil_mode` of torch.nn.MaxPool2d.
    """
    before, after = window.padding[axis]
    span = window.dilation[axis] * (window.kernel_size[axis] - 1) + 1
    found, start = [], -before
    while start + span <= n + after:
        found.append(start)
        start += window.stride[axis]
    unseen = found[-1] + span < n + after
    if window.rounding == "ceil" and unseen and start < n:
        found.append(start)
    return found


def output_size(window: Window, H: int, W: int) -> tuple[int, int]:
    """Height and width of what the window makes of an image."""
    return len(starts(window, 0, H)), len(starts(window, 1, W))


def taps(window: Window, H: int, W: int) -> Iterator[tuple[Index, Index, Index]]:
    """Each (oh, ow), (i, j), (h, w): tap (i, j) of the window at output (oh, ow) lies on (h, w), or off the image."""
    for (oh, top), (ow, left) in itertools.product(enumerate(starts(window, 0, H)), enumerate(starts(window, 1, W))):
        for i, j in everywhere(window.kernel_size):
            yield (oh, ow), (i, j), (top + i * window.dilation[0], left + j * window.dilation[1])


def in_image(h: int, w: int, H: int, W: int) -> bool:
    """Whether there is a pixel at (h, w)."""
    return 0 <= h < H and 0 <= w < W


# --- convolution ------------------------------------------------------------------------------------------------


def products(x_shape: Index, weight_shape: Index, window: Window, groups: int) -> Iterator[tuple[Index, Index, Index]]:
    """The products that a convolution adds up: each as an index of y, and those of its factors in x and weight.

    Input channel c of a filter is channel first + c of x, where `first` begins the group of output channel o.
    """
    N, H, W, _ = x_shape
    _, _, channels, O = weight_shape
    for (oh, ow), (i, j), (h, w) in taps(window, H, W):
        if in_image(h, w, H, W):
            for n, o, c in everywhere((N, O, channels)):
                first = o // (O // groups) * channels
                yield (n, oh, ow, o), (n, h, w, first + c), (i, j, c, o)


def conv2d(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, window: Window, groups: int = 1) -> np.ndarray:
    """y[n, oh, ow, o] = bias[o] + Σ_{i,j,c} x[n, h, w, c] · weight[i, j, c, o], tap (i, j) lying on pixel (h, w).

    x (N, H, W, C), weight (KH, KW, C/groups, O). Off the image x is 0.
    Source: Dumoulin and Visin 2016; groups: Krizhevsky, Sutskever, Hinton 2012, §3.2.
    """
    N, H, W, _ = x.shape
    y = np.zeros((N, *output_size(window, H, W), weight.shape[3]))
    if bias is not None:
        for n, oh, ow, o in everywhere(y.shape):
            y[n, oh, ow, o] = bias[o]
    for result, pixel, tap in products(x.shape, weight.shape, window, groups):
        y[result] += x[pixel] * weight[tap]
    return y


def conv2d_backward(
    dy: np.ndarray, x: np.ndarray, weight: np.ndarray, window: Window, groups: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx, dweight, dbias: in each product, the derivative by one factor is the other."""
    dx, dweight = np.zeros(x.shape), np.zeros(weight.shape)
    for result, pixel, tap in products(x.shape, weight.shape, window, groups):
        dx[pixel] += dy[result] * weight[tap]
        dweight[tap] += dy[result] * x[pixel]
    return dx, dweight, channel_sum(dy)


def channel_sum(x: np.ndarray) -> np.ndarray:
    """total[c] = Σ x[…, c]: the gradient of a bias, which every pixel of its channel adds once."""
    total = np.zeros(x.shape[-1])
    for place in everywhere(x.shape):
        total[place[-1]] += x[place]
    return total


def im2col(x: np.ndarray, window: Window) -> np.ndarray:
    """cols[n, oh, ow, i, j, c] = x[n, h, w, c], tap (i, j) of output (oh, ow) lying on (h, w); 0 off the image.

    Source: Chellapilla, Puri, Simard 2006.
    """
    N, H, W, C = x.shape
    cols = np.zeros((N, *output_size(window, H, W), *window.kernel_size, C))
    for output, tap, (h, w) in taps(window, H, W):
        if in_image(h, w, H, W):
            for n, c in everywhere((N, C)):
                cols[(n, *output, *tap, c)] = x[n, h, w, c]
    return cols


def col2im(cols: np.ndarray, x_shape: Index, window: Window) -> np.ndarray:
    """x[n, h, w, c] = Σ cols[n, oh, ow, i, j, c] over all taps that lie on (h, w)."""
    N, H, W, C = x_shape
    x = np.zeros(x_shape)
    for output, tap, (h, w) in taps(window, H, W):
        if in_image(h, w, H, W):
            for n, c in everywhere((N, C)):
                x[n, h, w, c] += cols[(n, *output, *tap, c)]
    return x


# --- pooling ----------------------------------------------------------------------------------------------------


def pools(x_shape: Index, window: Window) -> Iterator[tuple[Index, list[Index]]]:
    """Each index of y, with the pixels of x that its window sees, in row-major order."""
    N, H, W, C = x_shape
    pixels: dict[Index, list[Index]] = {}
    for output, _, (h, w) in taps(window, H, W):
        pixels.setdefault(output, []).extend([(h, w)] if in_image(h, w, H, W) else [])
    for n, (oh, ow), c in itertools.product(range(N), pixels, range(C)):
        yield (n, oh, ow, c), [(n, h, w, c) for h, w in pixels[oh, ow]]


def winner(x: np.ndarray, pixels: list[Index]) -> Index:
    """The pixel of the largest value: the first among equals, and the first NaN where there is one."""
    best = pixels[0]
    for pixel in pixels[1:]:
        if not math.isnan(x[best]) and (x[pixel] > x[best] or math.isnan(x[pixel])):
            best = pixel
    return best


def max_pool2d(x: np.ndarray, window: Window) -> np.ndarray:
    """y[n, oh, ow, c] = max x[n, h, w, c] over the pixels (h, w) that the window sees; padding is none.

    Source: Krizhevsky, Sutskever, Hinton 2012, §3.4.
    """
    y = np.zeros((x.shape[0], *output_size(window, *x.shape[1:3]), x.shape[3]))
    for result, pixels in pools(x.shape, window):
        y[result] = x[winner(x, pixels)]
    return y


def max_pool2d_backward(dy: np.ndarray, x: np.ndarray, window: Window) -> np.ndarray:
    """Each dy goes to the pixel that was the maximum."""
    dx = np.zeros(x.shape)
    for result, pixels in pools(x.shape, window):
        dx[winner(x, pixels)] += dy[result]
    return dx


def tap_counts(window: Window, H: int, W: int, count_include_pad: bool) -> dict[Index, int]:
    """Of each output (oh, ow): how many taps lie on pixels, or with `count_include_pad` on pixels and padding.

    What hangs over the padding, as the last window of "ceil" may, is neither.
    Source: torch.nn.AvgPool2d.
    """
    (top, bottom), (left, right) = window.padding
    counts: dict[Index, int] = {}
    for output, _, (h, w) in taps(window, H, W):
        on_padding = -top <= h < H + bottom and -left <= w < W + right
        counted = on_padding if count_include_pad else in_image(h, w, H, W)
        counts[output] = counts.get(output, 0) + counted
    return counts


def avg_pool2d(x: np.ndarray, window: Window, count_include_pad: bool = True) -> np.ndarray:
    """y[n, oh, ow, c] = 1/count · Σ x[n, h, w, c] over the pixels (h, w) that the window sees.

    Source: LeCun, Bottou, Bengio, Haffner 1998, §II.B.
    """
    _, H, W, _ = x.shape
    counts = tap_counts(window, H, W, count_include_pad)
    y = np.zeros((x.shape[0], *output_size(window, H, W), x.shape[3]))
    for result, pixels in pools(x.shape, window):
        for pixel in pixels:
            y[result] += x[pixel]
        y[result] /= counts[result[1:3]]
    return y


def avg_pool2d_backward(dy: np.ndarray, x: np.ndarray, window: Window, count_include_pad: bool = True) -> np.ndarray:
    """Each dy/count goes to every pixel that was averaged."""
    counts = tap_counts(window, *x.shape[1:3], count_include_pad)
    dx = np.zeros(x.shape)
    for result, pixels in pools(x.shape, window):
        for pixel in pixels:
            dx[pixel] += dy[result] / counts[result[1:3]]
    return dx


def whole(x: np.ndarray) -> Window:
    """The one window that is as large as the image."""
    return Window((x.shape[1], x.shape[2]), (1, 1), ((0, 0), (0, 0)), (1, 1), "floor")


def global_avg_pool2d(x: np.ndarray) -> np.ndarray:
    """y[n, 0, 0, c] = 1/(H·W) · Σ_{h,w} x[n, h, w, c].

    Source: Lin, Chen, Yan 2013, arXiv 1312.4400, §3.2.
    """
    return avg_pool2d(x, whole(x))


def global_avg_pool2d_backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Each dy/(H·W) goes to all pixels."""
    return avg_pool2d_backward(dy, x, whole(x))


def global_max_pool2d(x: np.ndarray) -> np.ndarray:
    """y[n, 0, 0, c] = max_{h,w} x[n, h, w, c]."""
    return max_pool2d(x, whole(x))


def global_max_pool2d_backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Each dy goes to the pixel that was the maximum."""
    return max_pool2d_backward(dy, x, whole(x))


# --- fully connected, and one number at a time ------------------------------------------------------------------


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """y[n, o] = bias[o] + Σ_i x[n, i] · weight[i, o]."""
    y = np.zeros((x.shape[0], weight.shape[1]))
    for n, o in everywhere(y.shape):
        y[n, o] = 0 if bias is None else bias[o]
        for i in range(x.shape[1]):
            y[n, o] += x[n, i] * weight[i, o]
    return y


def linear_backward(dy: np.ndarray, x: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx, dweight, dbias: in each product, the derivative by one factor is the other."""
    dx, dweight = np.zeros(x.shape), np.zeros(weight.shape)
    for n, i, o in everywhere((*x.shape, weight.shape[1])):
        dx[n, i] += dy[n, o] * weight[i, o]
        dweight[i, o] += dy[n, o] * x[n, i]
    return dx, dweight, channel_sum(dy)


def flatten(x: np.ndarray) -> np.ndarray:
    """y[n, e] is element e of sample n, counted with the last axis fastest."""
    y = np.zeros((x.shape[0], math.prod(x.shape[1:])))
    for n in range(x.shape[0]):
        for e, place in enumerate(everywhere(x.shape[1:])):
            y[n, e] = x[(n, *place)]
    return y


def flatten_backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Every number back to where it came from."""
    dx = np.zeros(x.shape)
    for n in range(x.shape[0]):
        for e, place in enumerate(everywhere(x.shape[1:])):
            dx[(n, *place)] = dy[n, e]
    return dx


def relu(x: np.ndarray) -> np.ndarray:
    """y = max(x, 0).

    Source: Nair and Hinton 2010; Krizhevsky, Sutskever, Hinton 2012, §3.1.
    """
    return elementwise(lambda x: max(x, 0.0), x)


def relu_backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """dx = dy · [x > 0]: of the slopes that 0 may have, 0 is taken."""
    return elementwise(lambda dy, x: dy if x > 0 else 0.0, dy, x)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """y = 1 / (1 + e^(−x))."""
    return elementwise(lambda x: 1 / (1 + math.exp(-x)), x)


def sigmoid_backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """dx = dy · e^(−x) / (1 + e^(−x))², by the quotient rule."""
    return elementwise(lambda dy, x: dy * math.exp(-x) / (1 + math.exp(-x)) ** 2, dy, x)


def tanh(x: np.ndarray) -> np.ndarray:
    """y = tanh(x).

    Source: LeCun, Bottou, Bengio, Haffner 1998.
    """
    return elementwise(math.tanh, x)


def tanh_backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """dx = dy / cosh(x)²."""
    return elementwise(lambda dy, x: dy / math.cosh(x) ** 2, dy, x)


# --- along the channels -----------------------------------------------------------------------------------------


def through_jacobian(dy: np.ndarray, jacobian: Callable[[Index, int, int], float]) -> np.ndarray:
    """dx[…, i] = Σ_j dy[…, j] · ∂y[…, j]/∂x[…, i], the last being jacobian(…, j, i)."""
    dx = np.zeros(dy.shape)
    for *pixel, i in everywhere(dy.shape):
        for j in range(dy.shape[-1]):
            dx[(*pixel, i)] += dy[(*pixel, j)] * jacobian(tuple(pixel), j, i)
    return dx


def softmax(x: np.ndarray) -> np.ndarray:
    """y_i = e^(x_i) / Σ_j e^(x_j) over the last axis.

    Source: Bridle 1990.
    """
    y = np.zeros(x.shape)
    for *pixel, i in everywhere(x.shape):
        total = math.fsum(math.exp(x[(*pixel, j)]) for j in range(x.shape[-1]))
        y[(*pixel, i)] = math.exp(x[(*pixel, i)]) / total
    return y


def softmax_backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """∂y_j/∂x_i = y_j · ([i = j] − y_i)."""
    y = softmax(x)
    return through_jacobian(dy, lambda pixel, j, i: y[(*pixel, j)] * ((i == j) - y[(*pixel, i)]))


def log_softmax(x: np.ndarray) -> np.ndarray:
    """y_i = log softmax(x)_i = x_i − log Σ_j e^(x_j)."""
    y = np.zeros(x.shape)
    for *pixel, i in everywhere(x.shape):
        total = math.fsum(math.exp(x[(*pixel, j)]) for j in range(x.shape[-1]))
        y[(*pixel, i)] = x[(*pixel, i)] - math.log(total)
    return y


def log_softmax_backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """∂y_j/∂x_i = [i = j] − softmax(x)_i."""
    p = softmax(x)
    return through_jacobian(dy, lambda pixel, j, i: (i == j) - p[(*pixel, i)])


class Norm(NamedTuple):
    """The constants of local response normalisation: n, α, β, k of the paper; `groups` its towers.

    average: whether α is divided by n, as in Caffe, PyTorch and ONNX.
    """

    size: int
    alpha: float
    beta: float
    k: float
    average: bool
    groups: int

    @property
    def scale(self) -> float:
        """What Σ x² is multiplied by."""
        return self.alpha / self.size if self.average else self.alpha


def neighbours(i: int, C: int, norm: Norm) -> range:
    """The channels that normalise channel i: `size` around it, as far as they exist in its group.

    Source: Krizhevsky, Sutskever, Hinton 2012, §3.3; ONNX's LRN for an even size: from i − ⌊(size−1)/2⌋ to
    i + ⌈(size−1)/2⌉.
    """
    first = i // (C // norm.groups) * (C // norm.groups)
    last = first + C // norm.groups - 1
    return range(max(first, i - math.floor((norm.size - 1) / 2)), min(last, i + math.ceil((norm.size - 1) / 2)) + 1)


def normaliser(x: np.ndarray, norm: Norm) -> np.ndarray:
    """s_i = k + scale · Σ x_j² over the neighbours j of i."""
    s = np.zeros(x.shape)
    for *pixel, i in everywhere(x.shape):
        squares = math.fsum(x[(*pixel, j)] ** 2 for j in neighbours(i, x.shape[-1], norm))
        s[(*pixel, i)] = norm.k + norm.scale * squares
    return s


def local_response_norm(x: np.ndarray, norm: Norm) -> np.ndarray:
    """y_i = x_i / s_i^β.

    Source: Krizhevsky, Sutskever, Hinton 2012, §3.3.
    """
    return elementwise(lambda x, s: x / s**norm.beta, x, normaliser(x, norm))


def local_response_norm_backward(dy: np.ndarray, x: np.ndarray, norm: Norm) -> np.ndarray:
    """∂y_j/∂x_i = [i = j] · s_j^(−β) + x_j · (−β) · s_j^(−β−1) · ∂s_j/∂x_i, and ∂s_j/∂x_i = 2·scale·x_i where i is a
    neighbour of j, else 0.
    """
    s = normaliser(x, norm)

    def jacobian(pixel: Index, j: int, i: int) -> float:
        s_j, x_j, x_i = s[(*pixel, j)], x[(*pixel, j)], x[(*pixel, i)]
        ds = 2 * norm.scale * x_i if i in neighbours(j, x.shape[-1], norm) else 0.0
        own = s_j**-norm.beta if i == j else 0.0
        return float(own - x_j * norm.beta * s_j ** (-norm.beta - 1) * ds)

    return through_jacobian(dy, jacobian)


# --- batch normalisation ----------------------------------------------------------------------------------------


def values_of(x: np.ndarray, c: int) -> list[float]:
    """All numbers of channel c."""
    return [x[(*pixel, c)] for pixel in everywhere(x.shape[:-1])]


def batch_statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each channel: μ = 1/m · Σ x and σ² = 1/m · Σ (x − μ)² over the batch.

    Source: Ioffe and Szegedy 2015, arXiv 1502.03167, Algorithm 1.
    """
    C, m = x.shape[-1], math.prod(x.shape[:-1])
    mean, var = np.zeros(C), np.zeros(C)
    for c in range(C):
        mean[c] = math.fsum(values_of(x, c)) / m
        var[c] = math.fsum((value - mean[c]) ** 2 for value in values_of(x, c)) / m
    return mean, var


def batch_norm(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, var: np.ndarray, eps: float
) -> np.ndarray:
    """y = γ · x̂ + β,  x̂ = (x − mean) / √(var + eps): with the statistics of the batch, or the running ones.

    Source: Ioffe and Szegedy 2015, Algorithms 1 and 2.
    """
    y = np.zeros(x.shape)
    for *pixel, c in everywhere(x.shape):
        y[(*pixel, c)] = gamma[c] * (x[(*pixel, c)] - mean[c]) / math.sqrt(var[c] + eps) + beta[c]
    return y


def running_statistics(
    x: np.ndarray, running_mean: np.ndarray, running_var: np.ndarray, momentum: float
) -> tuple[np.ndarray, np.ndarray]:
    """running ← (1 − momentum) · running + momentum · batch, with m/(m−1) · σ² as the variance.

    Source: Ioffe and Szegedy 2015, Algorithm 2, for m/(m−1); torch.nn.BatchNorm2d for the moving average.
    """
    mean, var = batch_statistics(x)
    m = math.prod(x.shape[:-1])
    return (
        elementwise(lambda running, batch: (1 - momentum) * running + momentum * batch, running_mean, mean),
        elementwise(lambda running, batch: (1 - momentum) * running + momentum * batch * m / (m - 1), running_var, var),
    )


def batch_norm_backward(
    dy: np.ndarray, x: np.ndarray, gamma: np.ndarray, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx, dgamma, dbeta through the graph x → μ, σ² → x̂ → y of a channel, as the paper states it:

        dx̂ = dy · γ
        dσ² = Σ dx̂ · (x − μ) · (−1/2) · (σ² + eps)^(−3/2)
        dμ = Σ dx̂ · (−1/√(σ² + eps)) + dσ² · 1/m · Σ −2·(x − μ)
        dx = dx̂ / √(σ² + eps) + dσ² · 2·(x − μ)/m + dμ/m
        dγ = Σ dy · x̂,    dβ = Σ dy

    Source: Ioffe and Szegedy 2015, §3.
    """
    (mean, var), m = batch_statistics(x), math.prod(x.shape[:-1])
    dx, dgamma, dbeta = np.zeros(x.shape), np.zeros(gamma.shape), channel_sum(dy)
    for c in range(x.shape[-1]):
        centred = [value - mean[c] for value in values_of(x, c)]
        std = math.sqrt(var[c] + eps)
        dnormalised = [value * gamma[c] for value in values_of(dy, c)]
        dvar = math.fsum(d * value for d, value in zip(dnormalised, centred, strict=True)) * -0.5 * std**-3
        dmean = math.fsum(-d / std for d in dnormalised) + dvar * math.fsum(-2 * value for value in centred) / m
        for pixel, d, value in zip(everywhere(x.shape[:-1]), dnormalised, centred, strict=True):
            dx[(*pixel, c)] = d / std + dvar * 2 * value / m + dmean / m
            dgamma[c] += dy[(*pixel, c)] * value / std
    return dx, dgamma, dbeta


# --- dropout ----------------------------------------------------------------------------------------------------


def philox4x32(counter: Sequence[int], key: Sequence[int]) -> tuple[int, ...]:
    """Philox4x32-10: four random words of 32 bits from a counter of four and a key of two. In round r = 0 … 9

        v = x₂, x₁, x₀, x₃
        x = hi(v₀·M₀) ⊕ k₀ ⊕ v₁,  lo(v₀·M₀),  hi(v₂·M₁) ⊕ k₁ ⊕ v₃,  lo(v₂·M₁)

    with k_i = key_i + r·C_i mod 2³², hi and lo being the halves of a product of 64 bits. x begins as the counter.
    Source: Salmon, Moraes, Dror, Shaw 2011; in this form, `std::philox4x32` of C++26, [rand.eng.philox].
    """
    M = 0xCD9E8D57, 0xD2511F53
    C = 0x9E3779B9, 0xBB67AE85  # the golden ratio and √3 − 1, as fractions of 2³²
    x = tuple(counter)
    for r in range(10):
        k = [(key[i] + r * C[i]) % 2**32 for i in (0, 1)]
        v = x[2], x[1], x[0], x[3]
        first, second = v[0] * M[0], v[2] * M[1]
        x = first // 2**32 ^ k[0] ^ v[1], first % 2**32, second // 2**32 ^ k[1] ^ v[3], second % 2**32
    return x


def dropout(x: np.ndarray, p: float, seed: int, first_sample: int = 0) -> np.ndarray:
    """y = x · mask / (1 − p), with mask = 0 where a random word of 32 bits is less than ⌊p·2³²⌋, else 1.

    Element e of sample n draws word e mod 4 of the counter (⌊e/4⌋ low, ⌊e/4⌋ high, first_sample + n, 0) under the key
    (seed low, seed high), low and high being the halves of 64 bits.
    Source: Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014, for the division by 1 − p.
    """
    y = np.zeros(x.shape)
    for n in range(x.shape[0]):
        for e, place in enumerate(everywhere(x.shape[1:])):
            counter = e // 4 % 2**32, e // 4 // 2**32, first_sample + n, 0
            word = philox4x32(counter, (seed % 2**32, seed // 2**32))[e % 4]
            y[(n, *place)] = x[(n, *place)] / (1 - p) if word >= math.floor(p * 2**32) else 0.0
    return y


def dropout_backward(dy: np.ndarray, x: np.ndarray, p: float, seed: int, first_sample: int = 0) -> np.ndarray:
    """dx = dy · mask / (1 − p), with the same mask."""
    return dropout(dy, p, seed, first_sample)


# --- layers of layers -------------------------------------------------------------------------------------------

Forward = Callable[[np.ndarray], np.ndarray]  # x → y
Backward = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, Any]]  # dy, x → dx, gradients of the parameters


def sequential(x: np.ndarray, forwards: Sequence[Forward]) -> np.ndarray:
    """y = f_L(… f₂(f₁(x)) …)."""
    for forward in forwards:
        x = forward(x)
    return x


def sequential_backward(
    dy: np.ndarray, x: np.ndarray, forwards: Sequence[Forward], backwards: Sequence[Backward]
) -> tuple[np.ndarray, list[Any]]:
    """The chain rule: what one layer returns as dx is the dy of the layer before."""
    gradients = []
    for depth in reversed(range(len(forwards))):
        dy, own = backwards[depth](dy, sequential(x, forwards[:depth]))
        gradients.insert(0, own)
    return dy, gradients


def add(x: np.ndarray, forwards: Sequence[Forward]) -> np.ndarray:
    """y = Σ_b f_b(x).

    Source: He, Zhang, Ren, Sun 2015, arXiv 1512.03385, equation 1.
    """
    return elementwise(lambda *terms: math.fsum(terms), *(forward(x) for forward in forwards))


def add_backward(
    dy: np.ndarray, x: np.ndarray, forwards: Sequence[Forward], backwards: Sequence[Backward]
) -> tuple[np.ndarray, list[Any]]:
    """Every branch gets dy, and x the sum of what they return."""
    dxs, gradients = zip(*(backward(dy, x) for backward in backwards), strict=True)
    return elementwise(lambda *terms: math.fsum(terms), *dxs), list(gradients)


def concat(x: np.ndarray, forwards: Sequence[Forward]) -> np.ndarray:
    """y[…] = (f₁(x)[…], f₂(x)[…], …): along the channels, one branch behind the other.

    Source: Szegedy et al. 2014, arXiv 1409.4842, §4.
    """
    branches = [forward(x) for forward in forwards]
    y = np.zeros((*branches[0].shape[:-1], sum(branch.shape[-1] for branch in branches)))
    for pixel in everywhere(y.shape[:-1]):
        for c, value in enumerate(value for branch in branches for value in branch[pixel]):
            y[(*pixel, c)] = value
    return y


def concat_backward(
    dy: np.ndarray, x: np.ndarray, forwards: Sequence[Forward], backwards: Sequence[Backward]
) -> tuple[np.ndarray, list[Any]]:
    """Every branch gets the channels of dy that it made, and x the sum of what they return."""
    dxs, gradients, first = [], [], 0
    for forward, backward in zip(forwards, backwards, strict=True):
        own = np.zeros(forward(x).shape)
        for *pixel, c in everywhere(own.shape):
            own[(*pixel, c)] = dy[(*pixel, first + c)]
        first += own.shape[-1]
        dx, gradient = backward(own, x)
        dxs.append(dx)
        gradients.append(gradient)
    return elementwise(lambda *terms: math.fsum(terms), *dxs), gradients


# --- losses -----------------------------------------------------------------------------------------------------


def reduced(losses: np.ndarray, reduction: str, weight: float) -> np.ndarray | float:
    """The losses ("none"), their sum, or their sum over a weight ("mean"); a mean over nothing is 0."""
    if reduction == "none":
        return losses
    total = math.fsum(losses[place] for place in everywhere(losses.shape))
    return total if reduction == "sum" else total / weight if weight else 0.0


def cross_entropy(
    logits: np.ndarray,
    labels: np.ndarray,
    weight: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> tuple[np.ndarray | float, np.ndarray]:
    """The loss and ∂Σloss/∂logits. With p = softmax(logits), label y, class weights w and label smoothing ε,

        loss = −(1 − ε) · w_y · log p_y − ε/C · Σ_c w_c · log p_c,    ∂(−log p_c)/∂logit_i = p_i − [i = c]

    and 0 where y is ignored. The mean divides by Σ w_y.
    Source: Szegedy et al. 2015, arXiv 1512.00567, §7, for the smoothing; torch.nn.CrossEntropyLoss for the weights.
    """
    C = logits.shape[-1]
    w = [1.0] * C if weight is None else weight
    p = softmax(logits)
    losses, dlogits, total_weight = np.zeros(labels.shape), np.zeros(logits.shape), 0.0
    for place in everywhere(labels.shape):
        y = labels[place]
        if y == ignore_index:
            continue
        total_weight += w[y]
        for c in range(C):
            share = label_smoothing / C * w[c] + ((1 - label_smoothing) * w[y] if c == y else 0.0)
            losses[place] -= share * math.log(p[(*place, c)])
            for i in range(C):
                dlogits[(*place, i)] += share * (p[(*place, i)] - (i == c))
    if reduction == "mean":
        dlogits = elementwise(lambda d: d / total_weight if total_weight else 0.0, dlogits)
    return reduced(losses, reduction, total_weight), dlogits


def mean_squared_error(
    outputs: np.ndarray, targets: np.ndarray, reduction: str = "mean"
) -> tuple[np.ndarray | float, np.ndarray]:
    """(output − target)² and its derivative 2 · (output − target) by the output; the mean divides by their number."""
    squares = elementwise(lambda output, target: (output - target) ** 2, outputs, targets)
    share = squares.size if reduction == "mean" else 1
    doutputs = elementwise(lambda output, target: 2 * (output - target) / share, outputs, targets)
    return reduced(squares, reduction, share), doutputs


# --- optimisers: one step of one number w with gradient g -------------------------------------------------------


def sgd_paper(w: float, g: float, v: float, lr: float, momentum: float, weight_decay: float) -> tuple[float, float]:
    """v ← momentum·v − weight_decay·lr·w − lr·g,    w ← w + v.    Returns w and v.

    Source: Krizhevsky, Sutskever, Hinton 2012, §5.
    """
    v = momentum * v - weight_decay * lr * w - lr * g
    return w + v, v


def nesterov_paper(
    w: float, g: float, v: float, lr: float, momentum: float, weight_decay: float
) -> tuple[float, float]:
    """v ← momentum·v − lr·∇f(θ + momentum·v),    θ ← θ + v, where w = θ + momentum·v is what the net computes with.

    Returns w and v. Weight decay is the gradient of weight_decay·w²/2, which is one part of f.
    Source: Sutskever, Martens, Dahl, Hinton 2013, equations 3 and 4.
    """
    theta = w - momentum * v
    v = momentum * v - lr * (g + weight_decay * w)
    theta += v
    return theta + momentum * v, v


def sgd_torch(
    w: float, g: float, v: float, lr: float, momentum: float, weight_decay: float, nesterov: bool
) -> tuple[float, float]:
    """g ← g + weight_decay·w,    v ← momentum·v + g,    g ← g + momentum·v (Nesterov) or v,    w ← w − lr·g

    Returns w and v.
    Source: the algorithm in the documentation of torch.optim.SGD, with dampening 0.
    """
    g = g + weight_decay * w
    v = momentum * v + g
    g = g + momentum * v if nesterov else v
    return w - lr * g, v


def adamw(
    w: float, g: float, m: float, v: float, t: int, lr: float, betas: tuple[float, float], eps: float, decay: float
) -> tuple[float, float, float]:
    """Step t = 1, 2, … of Adam with decoupled weight decay. Returns w, m and v.

        m ← β₁·m + (1 − β₁)·g,    v ← β₂·v + (1 − β₂)·g²,    m̂ = m/(1 − β₁ᵗ),    v̂ = v/(1 − β₂ᵗ)
        w ← w − lr · (m̂/(√v̂ + eps) + decay·w)

    Source: Loshchilov and Hutter 2019, arXiv 1711.05101, Algorithm 2, the decay scaled by lr as in torch.optim.AdamW.
    """
    m = betas[0] * m + (1 - betas[0]) * g
    v = betas[1] * v + (1 - betas[1]) * g**2
    unbiased_m, unbiased_v = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
    return w - lr * (unbiased_m / (math.sqrt(unbiased_v) + eps) + decay * w), m, v


# --- schedules: the learning rate of step 0, 1, 2, … ------------------------------------------------------------


def step_decay(step: int, base_lr: float, step_size: int, gamma: float) -> float:
    """base_lr, multiplied by gamma once every step_size steps."""
    lr = base_lr
    for past in range(1, step + 1):
        if past % step_size == 0:
            lr *= gamma
    return lr


def cosine(step: int, base_lr: float, steps: int, final_lr: float) -> float:
    """η = η_min + (η_max − η_min)/2 · (1 + cos(π · T_cur/T)) for T_cur ≤ T, and η_min from then on.

    Source: Loshchilov and Hutter 2017, arXiv 1608.03983, equation 5.
    """
    if step >= steps:
        return final_lr
    return final_lr + (base_lr - final_lr) / 2 * (1 + math.cos(step / steps * math.pi))


def warm_up(step: int, lr: float, steps: int) -> float:
    """lr of the schedule that follows, growing by the same amount in each of the first `steps` steps.

    Source: Goyal et al. 2017, arXiv 1706.02677, §2.2.
    """
    return lr if step + 1 >= steps else lr / steps * (step + 1)


def plateau(
    step: int, base_lr: float, gamma: float, patience: int, drops: int, errors: Sequence[tuple[int, float]]
) -> float:
    """base_lr, multiplied by gamma when `patience` validation errors in a row, by now, were no lower than the lowest
    before them, `drops` times at most; the waiting begins anew each time.

    Source: Krizhevsky, Sutskever, Hinton 2012, §5, who did it by hand.
    """
    lr, lowest, waited = base_lr, math.inf, 0
    for when, error in errors:
        if when <= step:
            waited = 0 if error < lowest else waited + 1
            lowest = min(error, lowest)
            if waited == patience and drops > 0:
                lr, drops, waited = lr * gamma, drops - 1, 0
    return lr
