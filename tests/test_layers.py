"""What layers and containers do, beyond their equations: corners, caches, names and state."""

from __future__ import annotations

import numpy as np
import pytest

from minidl import Key
from minidl.errors import (
    ArgumentError,
    CheckpointError,
    DeviceError,
    DTypeError,
    MinidlError,
    ShapeError,
    UnknownNameError,
)
from minidl.layers import (
    AvgPool2d,
    BatchNorm2d,
    Buffer,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    GlobalMaxPool2d,
    Layer,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    Parameter,
    ReLU,
    Sequential,
    Sum,
    Tanh,
)
from minidl.ops.dropout import dropout_mask
from minidl.random import philox

single = np.float32


def ones(*shape: int, dtype=single) -> np.ndarray:
    return np.ones(shape, dtype)


# --- single layers ----------------------------------------------------------------------------------------------


def test_a_running_mean_of_another_dtype_is_found_too():
    layer = BatchNorm2d(3)
    layer.running_var.value = layer.running_var.value.astype(np.float64)
    with pytest.raises(DTypeError, match="its running_var is float64 but x is float32"):
        layer.forward(ones(1, 4, 4, 3))


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_batch_norm_refuses_channels_that_would_broadcast(channels):
    with pytest.raises(ShapeError, match=f"expected 3 channels, got {channels}"):
        BatchNorm2d(3)(ones(1, 4, 4, channels))


def test_one_value_a_channel_is_enough_for_batch_norm_at_inference():
    assert BatchNorm2d(3)(ones(1, 1, 1, 3)).shape == (1, 1, 1, 3)


def test_layers_say_what_they_are():
    assert repr(Conv2d(3, 96, 11, 4)) == "Conv2d(3→96, 11×11, stride=4)"
    assert repr(Conv2d(4, 8, 3, groups=2, bias=False)) == "Conv2d(4→8, 3×3, groups=2, bias=False)"
    assert repr(AvgPool2d(2, count_include_pad=False)) == "AvgPool2d(2×2, stride=2, count_include_pad=False)"
    assert repr(Linear(3, 4, bias=False)) == "Linear(3→4, bias=False)"
    assert repr(LocalResponseNorm(3, 1, 1, 1, True, 2)) == (
        "LocalResponseNorm(size=3, alpha=1, beta=1, k=1, average=True, groups=2)"
    )
    net = Sequential(Sequential(a=ReLU()), fc=Linear(1, 2))
    assert repr(net) == "Sequential(\n    0=Sequential(\n        a=ReLU(),\n    ),\n    fc=Linear(1→2),\n)"
    assert repr(Sequential()) == "Sequential()"


def test_conv2d_without_bias_has_none():
    assert list(Conv2d(3, 4, 3, bias=False).parameters()) == ["weight"]
    assert list(Linear(3, 4, bias=False).parameters()) == ["weight"]


def test_pools_step_by_their_kernel_unless_told():
    assert MaxPool2d((2, 3)).window.stride == (2, 3)
    assert AvgPool2d((2, 3)).window.stride == (2, 3)
    assert MaxPool2d(3, 2).window.stride == (2, 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_global_max_pool_of_ties_and_nans(dtype):
    x = np.array([[[1, 5, 0], [4, 5, np.nan]], [[4, 5, np.nan], [3, 5, 9]]], dtype)[None]
    y, cache = GlobalMaxPool2d().forward(x, train=True)
    np.testing.assert_array_equal(y, np.array([4, 5, np.nan], dtype).reshape(1, 1, 1, 3))
    dx = GlobalMaxPool2d().backward(np.array([1, 2, 3], dtype).reshape(1, 1, 1, 3), cache)
    assert np.argwhere(dx).tolist() == [[0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 1, 2]]
    assert dx.dtype == dtype


def test_flatten_is_a_view_in_row_major_order():
    x = np.arange(24, dtype=np.float32).reshape(2, 2, 3, 2)
    y, cache = Flatten().forward(x, train=True)
    assert y.base is x or np.shares_memory(x, y)
    np.testing.assert_array_equal(y, np.arange(24).reshape(2, 12))
    np.testing.assert_array_equal(Flatten().backward(y, cache), x)


def test_batch_norm_normalises_and_follows(kernels):
    layer = BatchNorm2d(2, momentum=0.25).to(dtype="float64")
    x = np.random.default_rng(0).normal(3, 2, (4, 3, 3, 2))
    y, _ = layer.forward(x, train=True)
    np.testing.assert_allclose(y.mean(axis=(0, 1, 2)), 0, atol=1e-14)
    np.testing.assert_allclose(y.var(axis=(0, 1, 2)), 1, rtol=1e-4)
    np.testing.assert_allclose(layer.running_mean.value, 0.25 * x.mean(axis=(0, 1, 2)), rtol=1e-13)
    np.testing.assert_allclose(layer.running_var.value, 0.75 + 0.25 * x.var(axis=(0, 1, 2), ddof=1), rtol=1e-13)
    before = {name: value.copy() for name, value in layer.state_dict().items()}
    expected = (x - before["running_mean"]) / np.sqrt(before["running_var"] + 1e-5)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-13)
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[name], name)


# --- dropout ----------------------------------------------------------------------------------------------------


def test_the_mask_is_philoxs(kernels):
    key = Key(0xFEDCBA9876543210, sample=5)
    x, p = ones(3, 2, 7), 0.3
    for n in range(3):
        for e in range(14):
            word = philox((e // 4, 0, 5 + n, 0), (0x76543210, 0xFEDCBA98))[e % 4]
            kept = word >= int(p * 2**32)
            assert dropout_mask(x, p, key)[n, e // 7, e % 7] == kept
            y, _ = Dropout(p).forward(x, train=True, key=key)
            assert y[n, e // 7, e % 7] == (single(1 / (1 - p)) if kept else 0)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_a_share_of_p_and_keeps_the_mean(kernels, p):
    x = ones(100, 1000)
    y, _ = Dropout(p).forward(x, train=True, key=Key(0))
    deviation = np.sqrt(p * (1 - p) / x.size)
    assert abs((y == 0).mean() - p) < 4 * deviation
    assert abs(y.mean() - 1) < 4 * deviation / (1 - p)
    np.testing.assert_allclose(y[y != 0], 1 / (1 - p), rtol=1e-6)


def test_backward_draws_the_same_mask(kernels):
    x, dy = np.random.default_rng(0).standard_normal((2, 4, 50)).astype(single)
    y, cache = Dropout(0.4).forward(x, train=True, key=Key(3))
    dx = Dropout(0.4).backward(dy, cache)
    np.testing.assert_array_equal(dx == 0, y == 0)
    np.testing.assert_allclose(dx[dx != 0], dy[dx != 0] / 0.6, rtol=1e-6)


def test_the_mask_depends_on_the_key(kernels):
    x, layer = ones(4, 100), Dropout(0.5)
    masks = [layer.forward(x, train=True, key=key)[0] for key in (Key(0), Key(0), Key(1), Key(0).at("drop6"))]
    np.testing.assert_array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[0], masks[2])
    assert not np.array_equal(masks[0], masks[3])
    assert not np.array_equal(masks[0][0], masks[0][1])


def test_the_mask_does_not_depend_on_how_a_batch_is_split(kernels):
    net = Sequential(Dropout(0.5), ReLU(), Dropout(0.2))
    x = 1 + np.random.default_rng(0).random((6, 3, 5)).astype(single)
    whole, _ = net.forward(x, train=True, key=Key(9))
    parts = [net.forward(x[n : n + 2], train=True, key=Key(9, sample=n))[0] for n in (0, 2, 4)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_dropout_at_inference_and_with_p_0_is_the_identity():
    x, dy = ones(2, 3), ones(2, 3)
    assert Dropout(0.5)(x) is x
    y, cache = Dropout(0).forward(x, train=True, key=Key(0))
    assert y is x
    assert Dropout(0).backward(dy, cache) is dy


# --- containers -------------------------------------------------------------------------------------------------


def conv_net() -> Sequential:
    return Sequential(conv1=Conv2d(3, 64, 3, padding=1), relu1=ReLU(), conv2=Conv2d(96, 256, 5, padding=2, groups=2))


def test_errors_name_the_layer():
    with pytest.raises(ShapeError) as caught:
        conv_net().forward(ones(8, 27, 27, 3))
    assert str(caught.value) == (
        "conv2: Conv2d(96→256, 5×5, padding=2, groups=2): expected 96 channels, got 64 in x (8, 27, 27, 64)"
    )
    with pytest.raises(ShapeError, match=r"^conv2: expected 96 channels, got 64$"):
        conv_net().output_shape((27, 27, 3))


@pytest.mark.parametrize("wrap", [Sequential, Sum, Concat])
def test_errors_name_the_path(wrap):
    net = Sequential(block=wrap(Sequential(), body=Sequential(fc=Linear(4, 2))))
    with pytest.raises(ShapeError, match=r"^block\.body\.fc: Linear\(4→2\): expected 4 features, got 3 in x \(2, 3\)$"):
        net.forward(ones(2, 3))


def test_errors_of_backward_name_the_layer():
    net = Sequential(body=Sequential(fc=Linear(3, 2)))
    y, cache = net.forward(ones(4, 3), train=True)
    net["body"]["fc"].weight = Parameter(ones(2, 2))
    with pytest.raises(ShapeError, match=r"^body\.fc: a parameter of shape \(2, 2\) got a gradient of shape \(3, 2\)"):
        net.backward(y, cache)


def test_errors_are_of_minidl_and_of_python():
    for kind, builtin in [
        (ArgumentError, ValueError),
        (ShapeError, ValueError),
        (DTypeError, TypeError),
        (DeviceError, RuntimeError),
        (CheckpointError, OSError),
        (UnknownNameError, ValueError),
    ]:
        assert issubclass(kind, MinidlError)
        assert issubclass(kind, builtin)


def test_sequential_is_its_layers_in_a_row(kernels):
    first, second = Linear(3, 4), Linear(4, 2)
    net, x = Sequential(first, Tanh(), second), np.random.default_rng(0).standard_normal((5, 3)).astype(single)
    np.testing.assert_array_equal(net(x), second(np.tanh(first(x))))
    assert list(net.parameters()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert net["2"] is second


def test_backward_empties_the_cache_from_the_end_and_can_run_once():
    net = Sequential(fc1=Linear(3, 4), relu=ReLU(), fc2=Linear(4, 2))
    left = []
    backward = net["relu"].backward
    y, cache = net.forward(ones(5, 3), train=True)
    net["relu"].backward = lambda *args, **kwargs: left.append(len(cache)) or backward(*args, **kwargs)
    net.backward(y, cache)
    assert left == [1]
    assert cache == []
    with pytest.raises(ArgumentError) as caught:
        net.backward(y, cache)
    assert str(caught.value) == (
        "Sequential of 3: expected a cache of 3 layers, got 0; backward uses a cache up: "
        "run forward(x, train=True, key=…) again with the same key"
    )


def test_inference_keeps_nothing():
    net = Sequential(fc=Linear(3, 3), sum=Sum(ReLU(), Tanh()), concat=Concat(ReLU(), Dropout()))
    y, cache = net.forward(ones(2, 3))
    assert cache is None
    assert y.shape == (2, 6)


def test_without_input_gradient_only_the_first_layer_is_spared():
    net = Sequential(fc1=Linear(3, 4), fc2=Linear(4, 2))
    y, cache = net.forward(ones(5, 3), train=True)
    assert net.backward(y, cache, input_gradient=False) is None
    without = {name: parameter.grad for name, parameter in net.parameters().items()}
    net.zero_grad()
    y, cache = net.forward(ones(5, 3), train=True)
    assert net.backward(y, cache).shape == (5, 3)
    for name, parameter in net.parameters().items():
        np.testing.assert_array_equal(without[name], parameter.grad)


def test_an_empty_sequential_is_the_identity():
    x, net = ones(2, 3), Sequential()
    y, cache = net.forward(x, train=True)
    assert y is x
    assert net.backward(y, cache) is x
    assert net.backward(y, [], input_gradient=False) is None
    assert net.output_shape((4, 5)) == (4, 5)


def test_a_shared_layer_gets_both_gradients_and_one_name(kernels):
    fc = Linear(3, 3).to(dtype="float64")
    net = Sequential(first=fc, tanh=Tanh(), second=fc)
    assert list(net.parameters()) == ["first.weight", "first.bias"]
    assert list(net.state_dict()) == ["first.weight", "first.bias"]
    generator = np.random.default_rng(0)
    x, dy = generator.standard_normal((2, 4, 3))
    apart = Sequential(first=Linear(3, 3), tanh=Tanh(), second=Linear(3, 3)).to(dtype="float64")
    apart.load_state_dict(
        {f"{place}.{name}": a for place in ("first", "second") for name, a in fc.state_dict().items()}
    )
    for some in (net, apart):
        some.backward(dy, some.forward(x, train=True)[1])
    for name in ("weight", "bias"):
        total = apart.parameters()[f"first.{name}"].grad + apart.parameters()[f"second.{name}"].grad
        np.testing.assert_allclose(net.parameters()[f"first.{name}"].grad, total, rtol=1e-13)


def test_a_layer_at_two_places_draws_two_masks():
    drop = Dropout(0.5)
    both, _ = Concat(a=drop, b=drop).forward(ones(2, 64), train=True, key=Key(0))
    assert not np.array_equal(both[:, :64], both[:, 64:])


def test_names_not_positions_give_the_keys():
    x = ones(2, 64)
    y, _ = Sequential(drop6=Dropout(0.5)).forward(x, train=True, key=Key(4))
    after, _ = Sequential(relu=ReLU(), drop6=Dropout(0.5)).forward(x, train=True, key=Key(4))
    np.testing.assert_array_equal(y, after)
    alone, _ = Dropout(0.5).forward(x, train=True, key=Key(4).at("drop6"))
    np.testing.assert_array_equal(y, alone)


def test_sum_adds_and_gives_each_branch_dy():
    net = Sum(body=Linear(3, 3), shortcut=Sequential()).to(dtype="float64")
    x, dy = np.random.default_rng(0).standard_normal((2, 4, 3))
    before = x.copy(), dy.copy()
    y, cache = net.forward(x, train=True)
    np.testing.assert_array_equal(y, net["body"](x) + x)
    dx = net.backward(dy, cache)
    np.testing.assert_allclose(dx, dy + dy @ net["body"].weight.value.T, rtol=1e-13)
    np.testing.assert_array_equal((x, dy), before)
    triple = Sum(Sequential(), Sequential(), Sequential())
    y, cache = triple.forward(x, train=True)
    np.testing.assert_array_equal(y, x + x + x)
    np.testing.assert_array_equal(triple.backward(dy, cache), dy + dy + dy)
    np.testing.assert_array_equal((x, dy), before)


def test_concat_joins_channels_and_cuts_dy():
    net = Concat(a=Conv2d(2, 3, 1), b=Sequential(), c=Conv2d(2, 1, 3, padding=1)).to(dtype="float64")
    generator = np.random.default_rng(0)
    x, dy = generator.standard_normal((2, 4, 4, 2)), generator.standard_normal((2, 4, 4, 6))
    y, cache = net.forward(x, train=True)
    np.testing.assert_array_equal(y, np.concatenate([net["a"](x), x, net["c"](x)], axis=-1))
    dx = net.backward(dy, cache)
    expected = dy[..., 3:5].copy()
    for name, part in ("a", dy[..., :3]), ("c", dy[..., 5:]):
        expected += net[name].backward(part, x)
    np.testing.assert_allclose(dx, expected, rtol=1e-12)
    assert net.output_shape((4, 4, 2)) == (4, 4, 6)


def test_without_shares_the_layers():
    net = conv_net()
    less = net.without("relu1")
    assert list(less.layers) == ["conv1", "conv2"]
    assert less["conv1"] is net["conv1"]
    assert list(net.layers) == ["conv1", "relu1", "conv2"]


def test_counts_of_containers():
    net = Sequential(a=Conv2d(3, 4, 3, padding=1), b=Sum(Conv2d(4, 4, 3, padding=1), Sequential()), c=Flatten())
    assert net.output_shape((6, 5, 3)) == (120,)
    assert net.macs((6, 5, 3)) == 30 * 27 * 4 + 30 * 36 * 4
    assert net.columns((6, 5, 3)) == 30 * 36  # the most that are laid out at a time
    both = Concat(Conv2d(3, 4, 3), Conv2d(3, 2, 3))
    assert both.macs((6, 5, 3)) == 4 * 3 * 27 * 6
    assert Conv2d(4, 8, 3, groups=2).macs((5, 5, 4)) == 9 * 9 * 2 * 8
    assert Conv2d(4, 8, 3, groups=2).columns((5, 5, 4)) == 9 * 9 * 4
    assert Linear(7, 5).macs((7,)) == 35


def test_a_layer_must_say_what_it_does():
    class Half(Layer):
        pass

    with pytest.raises(NotImplementedError, match="Half does not define forward"):
        Half()(ones(1, 1))
    with pytest.raises(NotImplementedError, match="Half does not define backward"):
        Half().backward(ones(1, 1), None)


# --- parameters and state ---------------------------------------------------------------------------------------


def test_parameters_are_drawn_when_asked_for():
    draws = []
    parameter = Parameter.drawn((2, 3), lambda: draws.append(1) or ones(2, 3))
    assert (parameter.shape, parameter.size, parameter.is_drawn, draws) == ((2, 3), 6, False, [])
    assert parameter.value is parameter.value
    assert parameter.is_drawn
    assert draws == [1]


def test_describing_a_net_draws_nothing():
    net = Sequential(conv=Conv2d(3, 8, 3), flatten=Flatten(), fc=Linear(8 * 25, 4))
    net.output_shape((7, 7, 3)), net.macs((7, 7, 3)), repr(net), sum(p.size for p in net.parameters().values())
    assert not any(parameter.is_drawn for parameter in net.parameters().values())


def test_a_value_assigned_first_is_never_drawn():
    parameter = Parameter.drawn((2,), lambda: pytest.fail("drawn"))
    parameter.value = ones(2)
    assert parameter.value.tolist() == [1, 1]


def test_bare_layers_differ_from_each_other():
    first, second = Linear(5, 5), Linear(5, 5)
    assert not np.array_equal(first.weight.value, second.weight.value)
    assert not first.bias.value.any()
    assert not Conv2d(2, 3, kernel_size=1).bias.value.any()


def test_gradients_accumulate():
    parameter = Parameter(ones(2))
    fresh = ones(2)
    parameter.accumulate(fresh)
    assert parameter.grad is fresh
    parameter.accumulate(ones(2))
    assert parameter.grad.tolist() == [2, 2]


def stateful() -> Sequential:
    return Sequential(conv=Conv2d(1, 2, 3), norm=BatchNorm2d(2), relu=ReLU())


NAMES = ["conv.weight", "conv.bias", "norm.gamma", "norm.beta", "norm.running_mean", "norm.running_var"]


def test_state_round_trip():
    net, other = stateful(), stateful()
    net.forward(np.random.default_rng(0).standard_normal((2, 5, 5, 1)).astype(single), train=True)
    assert sorted(net.state_dict()) == sorted(NAMES)
    other.load_state_dict(net.state_dict())
    for name, value in other.state_dict().items():
        np.testing.assert_array_equal(value, net.state_dict()[name])
        assert not np.shares_memory(value, net.state_dict()[name])


def test_loading_casts_to_the_nets_dtype():
    net = stateful()
    net.load_state_dict({name: value.astype(np.float64) for name, value in stateful().state_dict().items()})
    assert {value.dtype for value in net.state_dict().values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("norm.running_var"), "norm.running_var is missing"),
        (lambda state: state.update(fc=ones(1)), "fc is unexpected"),
        (
            lambda state: state.update({"norm.beta": ones(3)}),
            r"norm.beta has shape \(3,\) instead of \(2,\)",
        ),
        (
            lambda state: state.update({"norm.running_mean": ones(1, 2)}),
            r"norm.running_mean has shape \(1, 2\) instead of \(2,\)",
        ),
    ],
)
def test_loading_is_all_or_nothing(change, message):
    net, state = stateful(), {name: value + 1 for name, value in stateful().state_dict().items()}
    before = {name: value.copy() for name, value in net.state_dict().items()}
    change(state)
    with pytest.raises(CheckpointError, match=f"the weights belong to another model: .*{message}"):
        net.load_state_dict(state)
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_a_long_list_of_differences_is_cut():
    with pytest.raises(CheckpointError, match=r"conv.weight is missing; .* and 3 more$"):
        stateful().load_state_dict({"a": ones(1), "b": ones(1)})


def test_to_changes_parameters_and_buffers_and_forgets_gradients():
    net = stateful()
    y, cache = net.forward(np.random.default_rng(0).standard_normal((2, 5, 5, 1)).astype(single), train=True)
    net.backward(y, cache)
    weight = net["conv"].weight.value
    assert net.to(dtype="float64") is net
    assert {value.dtype for value in net.state_dict().values()} == {np.dtype(np.float64)}
    assert all(parameter.grad is None for parameter in net.parameters().values())
    np.testing.assert_array_equal(net["conv"].weight.value, weight)
    assert net.to("cpu")(ones(1, 5, 5, 1, dtype=np.float64)).dtype == np.float64


def test_zero_grad():
    net = stateful()
    for parameter in net.parameters().values():
        parameter.grad = np.ones(parameter.shape, single)
    net.zero_grad()
    assert all(parameter.grad is None for parameter in net.parameters().values())


def test_buffers_are_no_parameters():
    assert list(BatchNorm2d(2).buffers()) == ["running_mean", "running_var"]
    assert list(BatchNorm2d(2).parameters()) == ["gamma", "beta"]
    assert isinstance(BatchNorm2d(2).running_mean, Buffer)


def test_a_layer_of_ones_own_is_searched():
    class Block(Layer):
        def __init__(self):
            self.scale = Parameter(ones(1))
            self.inner = Linear(2, 2)

    net = Sequential(block=Block())
    assert list(net.parameters()) == ["block.scale", "block.inner.weight", "block.inner.bias"]


# --- which units decide -----------------------------------------------------------------------------------------


def test_decisions_are_signs_and_winners():
    x = np.array([[-1.0, 0.0, 0.5, 2.0]])
    _, cache = ReLU().forward(x, train=True)
    assert ReLU().decisions(cache)[0].tolist() == [[False, False, True, True]]
    image = np.arange(4, dtype=single).reshape(1, 2, 2, 1)
    for pool in MaxPool2d(2), GlobalMaxPool2d():
        _, cache = pool.forward(image, train=True)
        assert pool.decisions(cache)[0].ravel().tolist() == [3]
    net = Sequential(Sum(ReLU(), ReLU()), Concat(ReLU(), Tanh()))
    _, cache = net.forward(x, train=True)
    assert len(net.decisions(cache)) == 3
