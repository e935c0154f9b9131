"""Every layer, loss and optimiser, and whole trainings, against PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from minidl.data.digits import load_digits
from minidl.initializers import SCHEMES, initialize
from minidl.layers import (
    AvgPool2d,
    BatchNorm2d,
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
    Tanh,
)
from minidl.losses import MeanSquaredError, SoftmaxCrossEntropy
from minidl.models import alexnet, alexnet_mini
from minidl.ops.conv2d import im2col
from minidl.ops.dropout import dropout_mask
from minidl.optim import SGD, AdamW
from minidl.random import Key
from minidl.schedules import Cosine
from minidl.training.step import train_step

torch = pytest.importorskip("torch", reason="PyTorch is not installed, so nothing is compared with it")
F = torch.nn.functional

TOLERANCE = {"float64": 1e-12, "float32": 1e-5}

both_dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])


# --- between the two layouts ------------------------------------------------------------------------------------


def to_nchw(x: np.ndarray) -> torch.Tensor:
    """Our (N, H, W, C) as PyTorch's (N, C, H, W); other ranks as they are."""
    return torch.tensor(x.transpose(0, 3, 1, 2) if x.ndim == 4 else x).contiguous()


def from_nchw(x: torch.Tensor) -> np.ndarray:
    array = x.detach().numpy()
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def to_torch_weight(weight: np.ndarray) -> torch.Tensor:
    """(KH, KW, C, O) as PyTorch's (O, C, KH, KW); (inputs, outputs) as (outputs, inputs)."""
    axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[weight.ndim]
    return torch.tensor(weight.transpose(axes)).contiguous()


def from_torch_weight(weight: torch.Tensor) -> np.ndarray:
    axes = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[weight.ndim]
    return weight.detach().numpy().transpose(axes)


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """‖ours − theirs‖ / ‖theirs‖, where two tensors of zeros agree."""
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    difference, norm = np.linalg.norm((ours - theirs).ravel()), np.linalg.norm(theirs.ravel())
    return 0.0 if difference == 0 else float(difference / norm)


def assert_layer_agrees(layer: Layer, theirs: Callable[..., torch.Tensor], x: np.ndarray, train: bool = True) -> None:
    """Compare y, dx and the gradients of all parameters with those of a function of x and the parameters."""
    layer.to(dtype=x.dtype)
    generator = np.random.default_rng(99)
    for parameter in layer.parameters().values():  # biases of 0 and scales of 1 would hide mistakes
        parameter.value = generator.standard_normal(parameter.shape).astype(x.dtype)
    y, cache = layer.forward(x, train=True)
    dy = generator.standard_normal(y.shape).astype(x.dtype)
    dx = layer.backward(dy, cache)

    image = to_nchw(x).requires_grad_()
    weights = {name: to_torch_weight(p.value).requires_grad_() for name, p in layer.parameters().items()}
    expected = theirs(image, **weights)
    expected.backward(to_nchw(dy))
    tolerance = TOLERANCE[x.dtype.name]
    assert relative_error(y, from_nchw(expected)) <= tolerance
    assert relative_error(dx, from_nchw(image.grad)) <= tolerance
    for name, parameter in layer.parameters().items():
        assert relative_error(parameter.grad, from_torch_weight(weights[name].grad)) <= tolerance, name


# --- layers -----------------------------------------------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize("seed", range(24))
def test_conv2d(kernels, seed, dtype):
    draw = np.random.default_rng(seed)
    groups, bias, rounding = int(draw.integers(1, 4)), bool(draw.random() < 0.7), ("floor", "ceil")[seed % 2]
    C, O = (groups * int(draw.integers(1, 4)) for _ in range(2))
    kernel, stride, dilation = (tuple(draw.integers(1, top, 2).tolist()) for top in (5, 4, 3))
    padding = tuple(map(tuple, draw.integers(0, 3, (2, 2)).tolist()))
    H, W = (dilation[i] * (kernel[i] - 1) + 1 + int(draw.integers(0, 7)) for i in range(2))
    layer = Conv2d(C, O, kernel, stride, padding, dilation, groups, bias, rounding)
    OH, OW, _ = layer.output_shape((H, W, C))
    (top, bottom), (left, right) = padding
    if rounding == "ceil":  # PyTorch's convolution has no such mode: lengthen the image, cut the result
        bottom, right = bottom + stride[0] - 1, right + stride[1] - 1

    def theirs(x, weight, bias=None):
        padded = F.pad(x, (left, right, top, bottom))
        y = F.conv2d(padded, weight, bias, stride, dilation=dilation, groups=groups)
        return y[:, :, :OH, :OW] if rounding == "ceil" else y

    assert_layer_agrees(layer, theirs, draw.standard_normal((int(draw.integers(1, 4)), H, W, C)).astype(dtype))


def draw_pooling(draw: np.random.Generator) -> tuple[dict, dict, tuple[int, int]]:
    """A pooling that PyTorch can do too, in our words and in its own, and the height and width of an image."""
    kernel, stride = (tuple(draw.integers(1, top, 2).tolist()) for top in (5, 4))
    padding = tuple(int(draw.integers(0, k // 2 + 1)) for k in kernel)
    ceil = bool(draw.random() < 0.5)
    ours = {"kernel_size": kernel, "stride": stride, "padding": padding, "rounding": "ceil" if ceil else "floor"}
    theirs = {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil}
    return ours, theirs, (int(draw.integers(7, 13)), int(draw.integers(7, 13)))


@both_dtypes
@pytest.mark.parametrize("seed", range(24))
def test_max_pool2d(kernels, seed, dtype):
    draw = np.random.default_rng(seed)
    ours, theirs, (H, W) = draw_pooling(draw)
    dilation = tuple(draw.integers(1, 3, 2).tolist())
    x = draw.standard_normal((2, H, W, 3)) if seed % 2 else draw.integers(-3, 3, (2, H, W, 3))  # with ties
    assert_layer_agrees(
        MaxPool2d(**ours, dilation=dilation), lambda x: F.max_pool2d(x, **theirs, dilation=dilation), x.astype(dtype)
    )


@both_dtypes
@pytest.mark.parametrize("seed", range(8))
def test_max_pool2d_with_another_padding_on_each_side(kernels, seed, dtype):
    draw = np.random.default_rng(seed)
    (top, bottom), (left, right) = padding = draw.integers(0, 3, (2, 2)).tolist()

    def theirs(x):
        return F.max_pool2d(F.pad(x, (left, right, top, bottom), value=-torch.inf), (3, 4), (2, 1))

    x = draw.standard_normal((2, 7, 9, 3)).astype(dtype)
    assert_layer_agrees(MaxPool2d((3, 4), (2, 1), padding), theirs, x)


@both_dtypes
@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("seed", range(16))
def test_avg_pool2d(kernels, seed, count_include_pad, dtype):
    draw = np.random.default_rng(seed)
    ours, theirs, (H, W) = draw_pooling(draw)
    assert_layer_agrees(
        AvgPool2d(**ours, count_include_pad=count_include_pad),
        lambda x: F.avg_pool2d(x, **theirs, count_include_pad=count_include_pad),
        draw.standard_normal((2, H, W, 3)).astype(dtype),
    )


@both_dtypes
@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (1, 1, 1, 2), (3, 1, 6, 1)])
def test_global_pools(kernels, normal, shape, dtype):
    x = normal(*shape, dtype=dtype)
    assert_layer_agrees(GlobalAvgPool2d(), lambda x: F.adaptive_avg_pool2d(x, 1), x)
    assert_layer_agrees(GlobalMaxPool2d(), lambda x: F.adaptive_max_pool2d(x, 1), x)


# α = 0.5 and k = 0.7, so that every term of the backward pass counts.
@both_dtypes
@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("size", [1, 3, 5, 7, 13])
def test_local_response_norm(kernels, normal, size, average, dtype):
    alpha = 0.5 if average else 0.5 * size  # PyTorch always divides it by the size
    assert_layer_agrees(
        LocalResponseNorm(size, 0.5, 0.75, 0.7, average),
        lambda x: F.local_response_norm(x, size, alpha, 0.75, 0.7),
        normal(2, 3, 4, 9, dtype=dtype),
    )


@both_dtypes
@pytest.mark.parametrize("size", [2, 4, 6])
def test_local_response_norm_of_even_size_is_torchs_with_the_channels_turned_around(kernels, normal, size, dtype):
    assert_layer_agrees(
        LocalResponseNorm(size, 0.5, 0.6, 0.7, average=True),
        lambda x: F.local_response_norm(x.flip(1), size, 0.5, 0.6, 0.7).flip(1),
        normal(2, 3, 4, 7, dtype=dtype),
    )


@both_dtypes
def test_local_response_norm_in_groups(kernels, normal, dtype):
    def theirs(x):
        return torch.cat([F.local_response_norm(tower, 5, 0.5 * 5, 0.75, 0.7) for tower in x.chunk(2, dim=1)], dim=1)

    assert_layer_agrees(LocalResponseNorm(5, 0.5, 0.75, 0.7, groups=2), theirs, normal(2, 3, 4, 12, dtype=dtype))


@both_dtypes
@pytest.mark.parametrize(
    ("layer", "theirs"),
    [
        (ReLU(), lambda x: F.relu(x)),
        (Tanh(), lambda x: torch.tanh(x)),
        (Sigmoid(), lambda x: torch.sigmoid(x)),
        (Softmax(), lambda x: F.softmax(x, dim=1)),
        (LogSoftmax(), lambda x: F.log_softmax(x, dim=1)),
    ],
    ids=lambda value: str(value).removesuffix("()") if isinstance(value, Layer) else "",
)
@pytest.mark.parametrize("shape", [(3, 10), (2, 4, 5, 6)])
def test_activations(kernels, normal, layer, theirs, shape, dtype):
    assert_layer_agrees(layer, theirs, (3 * normal(*shape)).astype(dtype))


@both_dtypes
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(4, 6), (1, 1), (7, 3)])
def test_linear(kernels, normal, shape, bias, dtype):
    layer = Linear(shape[1], 5, bias)
    assert_layer_agrees(layer, lambda x, weight, bias=None: F.linear(x, weight, bias), normal(*shape, dtype=dtype))


@both_dtypes
@pytest.mark.parametrize(("momentum", "eps"), [(0.1, 1e-5), (0.7, 0.3)])
@pytest.mark.parametrize("shape", [(4, 5, 6, 3), (5, 1, 1, 4)])
def test_batch_norm2d(kernels, normal, shape, momentum, eps, dtype):
    layer, C = BatchNorm2d(shape[3], eps, momentum), shape[3]
    mean, var = torch.zeros(C, dtype=getattr(torch, dtype)), torch.ones(C, dtype=getattr(torch, dtype))

    def theirs(x, gamma, beta):
        return F.batch_norm(x, mean, var, gamma, beta, True, momentum, eps)

    for seed in range(3):  # the running statistics follow three batches
        x = 3 + 2 * normal(*shape, seed=seed, dtype=dtype)
        layer.zero_grad()
        assert_layer_agrees(layer, theirs, x)
    tolerance = TOLERANCE[dtype]
    assert relative_error(layer.running_mean.value, mean.numpy()) <= tolerance
    assert relative_error(layer.running_var.value, var.numpy()) <= tolerance
    gamma, beta = (torch.tensor(p.value) for p in (layer.gamma, layer.beta))
    assert relative_error(layer(x), from_nchw(F.batch_norm(to_nchw(x), mean, var, gamma, beta, eps=eps))) <= tolerance


# --- losses -----------------------------------------------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignore_index", [-100, 2])
@pytest.mark.parametrize("shape", [(8, 5), (4, 3, 5)])
def test_softmax_cross_entropy(kernels, normal, shape, ignore_index, weighted, label_smoothing, reduction, dtype):
    weight = np.array([0.5, 2.0, 1.0, 0.0, 3.0]) if weighted else None
    logits = (3 * normal(*shape)).astype(dtype)
    labels = np.random.default_rng(1).integers(0, 5, shape[:-1])
    labels.flat[:4] = 0, 1, 2, 4
    loss = SoftmaxCrossEntropy(weight, label_smoothing, ignore_index, reduction)
    value, cache = loss.forward(logits, labels)
    scale = normal(*value.shape, seed=2, dtype=dtype) if reduction == "none" else 1.7
    dlogits = loss.backward(cache, scale)

    theirs = torch.tensor(logits).requires_grad_()
    expected = F.cross_entropy(
        theirs if len(shape) == 2 else theirs.movedim(-1, 1),
        torch.tensor(labels),
        None if weight is None else torch.tensor(weight.astype(dtype)),
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction=reduction,
    )
    expected.backward(torch.tensor(scale, dtype=expected.dtype))
    assert relative_error(np.asarray(value), expected.detach().numpy()) <= TOLERANCE[dtype]
    assert relative_error(dlogits, theirs.grad.numpy()) <= TOLERANCE[dtype]


@both_dtypes
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_mean_squared_error(kernels, normal, reduction, dtype):
    outputs, targets = (normal(4, 3, seed=seed, dtype=dtype) for seed in (1, 2))
    loss = MeanSquaredError(reduction)
    value, cache = loss.forward(outputs, targets)
    scale = normal(4, 3, seed=3, dtype=dtype) if reduction == "none" else 1.7
    doutputs = loss.backward(cache, scale)
    theirs = torch.tensor(outputs).requires_grad_()
    expected = F.mse_loss(theirs, torch.tensor(targets), reduction=reduction)
    expected.backward(torch.tensor(scale, dtype=expected.dtype))
    assert relative_error(np.asarray(value), expected.detach().numpy()) <= TOLERANCE[dtype]
    assert relative_error(doutputs, theirs.grad.numpy()) <= TOLERANCE[dtype]


# --- optimisers -------------------------------------------------------------------------------------------------


def assert_optimizers_agree(make_ours, make_theirs, rates, dtype) -> None:
    """The same random gradients, step by step, through both optimisers."""
    generator = np.random.default_rng(0)
    ours = {name: Parameter(generator.standard_normal(shape).astype(dtype)) for name, shape in SHAPES.items()}
    theirs = {name: torch.tensor(parameter.value).requires_grad_() for name, parameter in ours.items()}
    optimizer, their_optimizer = make_ours(ours), make_theirs(list(theirs.values()))
    for lr in rates:
        for name, parameter in ours.items():
            parameter.grad = generator.standard_normal(parameter.shape).astype(dtype)
            theirs[name].grad = torch.tensor(parameter.grad)
        optimizer.step(lr)
        their_optimizer.param_groups[0]["lr"] = lr
        their_optimizer.step()
        for name, parameter in ours.items():
            assert relative_error(parameter.value, theirs[name].detach().numpy()) <= TOLERANCE[dtype]


SHAPES = {"weight": (5, 4), "bias": (4,)}
CHANGING = [0.1 * 0.8**step for step in range(20)]


@both_dtypes
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_sgd(kernels, momentum, nesterov, weight_decay, dtype):
    def theirs(parameters):
        return torch.optim.SGD(parameters, 1.0, momentum, weight_decay=weight_decay, nesterov=nesterov)

    def ours(update):
        return lambda parameters: SGD(parameters, momentum, weight_decay, nesterov, update)

    assert_optimizers_agree(ours("torch"), theirs, CHANGING, dtype)
    assert_optimizers_agree(ours("paper"), theirs, [0.1] * 20, dtype)


@both_dtypes
@pytest.mark.parametrize(
    ("betas", "eps", "weight_decay"), [((0.9, 0.999), 1e-8, 0.01), ((0.5, 0.8), 1e-2, 0.3), ((0.0, 0.0), 0.1, 0.0)]
)
def test_adamw(kernels, betas, eps, weight_decay, dtype):
    assert_optimizers_agree(
        lambda parameters: AdamW(parameters, betas, eps, weight_decay),
        lambda parameters: torch.optim.AdamW(parameters, 1.0, betas, eps, weight_decay),
        CHANGING,
        dtype,
    )


# --- training ---------------------------------------------------------------------------------------------------


class Twin:
    """A Sequential in PyTorch: the same weights in PyTorch's layout, and the masks that our dropout draws."""

    def __init__(self, net: Sequential) -> None:
        self.net = net
        self.parameters = {name: to_torch_weight(p.value).requires_grad_() for name, p in net.parameters().items()}

    def logits(self, images: np.ndarray, key: Key) -> torch.Tensor:
        x = to_nchw(images)
        for name, layer in self.net.layers.items():
            x = self.apply(
                layer, x, self.parameters.get(f"{name}.weight"), self.parameters.get(f"{name}.bias"), key.at(name)
            )
        return x

    def apply(self, layer: Layer, x: torch.Tensor, weight, bias, key: Key) -> torch.Tensor:
        match layer:
            case Conv2d(window=window):
                padding = tuple(before for before, _ in window.padding)
                return F.conv2d(x, weight, bias, window.stride, padding, window.dilation, layer.groups)
            case MaxPool2d(window=window):
                return F.max_pool2d(x, window.kernel, window.stride)
            case LocalResponseNorm():
                return F.local_response_norm(x, layer.size, layer.alpha * layer.size, layer.beta, layer.k)
            case ReLU():
                return F.relu(x)
            case Flatten():
                return x.permute(0, 2, 3, 1).flatten(1)
            case Linear():
                return F.linear(x, weight, bias)
            case Dropout(p=p):
                mask = dropout_mask(np.empty(x.shape, np.float32), p, key)
                return x * torch.tensor(mask) / (1 - p)
        raise TypeError(f"no twin for {layer}")

    def backward(self, images: np.ndarray, labels: np.ndarray, key: Key) -> float:
        """The loss; the gradients are then in the parameters."""
        for parameter in self.parameters.values():
            parameter.grad = None
        loss = F.cross_entropy(self.logits(images, key), torch.tensor(labels))
        loss.backward()
        return float(loss.detach())


def near_a_kink(net: Sequential, x: np.ndarray, key: Key) -> bool:
    """Whether a ReLU is within 1e-6 of 0, or the two largest numbers of a pool's window of each other.

    Windows of zeros do not count: the ReLU before them is off, so no gradient passes whichever of them wins.
    """
    for name, layer in net.layers.items():
        if isinstance(layer, ReLU) and np.abs(x).min() < 1e-6:
            return True
        if isinstance(layer, MaxPool2d):
            first = second = np.float32(-np.inf)
            for tap in np.moveaxis(im2col.reference(x, layer.window), (3, 4), (0, 1)).reshape(9, -1):
                second = np.maximum(second, np.minimum(first, tap))
                first = np.maximum(first, tap)
            if (first - second)[first > 0].min(initial=np.inf) < 1e-6:
                return True
        x = layer.forward(x, train=True, key=key.at(name))[0]
    return False


def away_from_kinks(net: Sequential, key: Key, draw: Callable[[], tuple]) -> tuple[np.ndarray, np.ndarray]:
    """A batch of which no unit lies near a kink."""
    for _ in range(50):
        images, labels = draw()
        if not near_a_kink(net, images, key):
            return images, labels
    raise AssertionError("fifty batches in a row have a unit near a kink")


class Digits:
    """Batches of four out of twelve real digits, enlarged to 32×32; with noise, so that no two pixels are equal."""

    def __init__(self, dtype: str) -> None:
        self.generator = np.random.default_rng(0)
        self.split, self.dtype = load_digits().train, dtype

    def __call__(self) -> tuple[np.ndarray, np.ndarray]:
        chosen = self.generator.integers(0, 12, 4)
        images = np.stack([self.split.image(int(i)) for i in chosen]).repeat(4, axis=1).repeat(4, axis=2) / 255 - 0.3
        images += 0.1 * self.generator.standard_normal(images.shape)
        return images.astype(self.dtype), self.split.labels[chosen]


@pytest.fixture
def one_torch_thread() -> Iterator[None]:
    """For small nets, where PyTorch's threads would mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_two_hundred_steps_in_float64(one_torch_thread):
    steps, seed = 200, 7
    net = alexnet_mini(in_channels=1)
    initialize(net, SCHEMES["he"], Key(seed))
    net.to(dtype="float64")
    twin, draw, schedule = Twin(net), Digits("float64"), Cosine(0.005, steps)
    optimizer = SGD(net.parameters(), 0.9, 5e-4, update="torch")
    their_optimizer = torch.optim.SGD(list(twin.parameters.values()), 1.0, 0.9, weight_decay=5e-4)
    losses = []
    for step in range(steps):
        key, lr = Key(seed).at(step), schedule.lr(step)
        images, labels = away_from_kinks(net, key, draw)
        ours, _ = train_step(net, SoftmaxCrossEntropy(), optimizer, images, labels, lr, key)
        theirs = twin.backward(images, labels, key)
        their_optimizer.param_groups[0]["lr"] = lr
        their_optimizer.step()
        assert abs(ours - theirs) <= 1e-9, f"step {step}"
        losses.append(ours)
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:20])  # it did learn something


def test_fifty_steps_in_float32_each_from_pytorchs_weights(one_torch_thread):
    seed = 8
    net = alexnet_mini(in_channels=1)
    initialize(net, SCHEMES["he"], Key(seed))
    twin, draw = Twin(net), Digits("float32")
    their_optimizer = torch.optim.SGD(list(twin.parameters.values()), 0.01, 0.9, weight_decay=5e-4)
    for step in range(50):
        key = Key(seed).at(step)
        net.load_state_dict({name: from_torch_weight(weight) for name, weight in twin.parameters.items()})
        assert_gradients_agree(net, twin, *away_from_kinks(net, key, draw), key, 1e-5, 1e-4)
        their_optimizer.step()


@both_dtypes
def test_every_gradient_of_alexnet(dtype):
    key, generator = Key(9), np.random.default_rng(9)
    net = alexnet()
    initialize(net, SCHEMES["he"], key)
    for name, parameter in net.parameters().items():
        if name.endswith("bias"):
            parameter.value += np.float32(0.1)
    net.to(dtype=dtype)

    def draw():
        return generator.standard_normal((1, 227, 227, 3)).astype(dtype), generator.integers(0, 1000, 1)

    images, labels = away_from_kinks(net, key, draw)
    loss, gradient = (1e-5, 1e-4) if dtype == "float32" else (1e-9, 1e-9)
    assert_gradients_agree(net, Twin(net), images, labels, key, loss, gradient)


def assert_gradients_agree(net, twin, images, labels, key, loss_tolerance, gradient_tolerance) -> None:
    loss = SoftmaxCrossEntropy()
    net.zero_grad()
    logits, cache = net.forward(images, train=True, key=key)
    ours, loss_cache = loss.forward(logits, labels)
    net.backward(loss.backward(loss_cache), cache, input_gradient=False)
    theirs = twin.backward(images, labels, key)
    assert abs(float(ours) - theirs) <= loss_tolerance * abs(theirs)
    for name, parameter in net.parameters().items():
        error = relative_error(parameter.grad, from_torch_weight(twin.parameters[name].grad))
        assert error <= gradient_tolerance, name
