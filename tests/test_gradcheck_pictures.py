"""The pictures of gradient checks: the numbers in them, and the files."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from minidl import faults, gradcheck
from minidl.errors import ArgumentError, ShapeError, UnknownNameError
from minidl.gradcheck.plot import _Layout
from minidl.layers import Conv2d, Layer, Linear, MaxPool2d, ReLU, Sequential, Tanh
from minidl.losses import SoftmaxCrossEntropy


def curve(swept, tensor, dtype):
    return next(curve for curve in swept.curves if (curve.tensor, curve.dtype) == (tensor, dtype))


def slope(steps, errors):
    """Decades of error for a decade of step."""
    return np.polyfit(np.log10(steps), np.log10(errors), 1)[0]


@pytest.mark.parametrize("tensor", ["x", "weight", "bias"])
def test_the_curve_of_a_right_gradient_is_a_v(tensor):
    swept = gradcheck.sweep(Conv2d(3, 4, kernel_size=3), (2, 5, 6, 3))
    double, single = curve(swept, tensor, "float64"), curve(swept, tensor, "float32")
    truncation = (double.steps > 1e-4) & (double.steps < 1e-1)
    assert slope(double.steps[truncation], double.errors[truncation]) == pytest.approx(2, abs=0.1)
    rounding = double.steps < 1e-7
    assert slope(double.steps[rounding], double.errors[rounding]) == pytest.approx(-1, abs=0.2)
    rounding = single.steps < 1e-3
    assert slope(single.steps[rounding], single.errors[rounding]) == pytest.approx(-1, abs=0.3)
    assert double.errors.min() < 1e-9
    assert 1e-6 < single.errors.min() < 1e-3
    assert 1e-7 < double.steps[double.errors.argmin()] < 1e-4
    assert not double.kinks.any()


def test_a_wrong_gradient_is_as_wrong_at_every_step():
    with faults.planted(faults.named("Conv2d", "padding")):
        swept = gradcheck.sweep(Conv2d(2, 3, kernel_size=3, padding=1), (2, 4, 4, 2))
    x = curve(swept, "x", "float64").errors
    assert x.min() > 0.1
    assert x.max() < 10 * x.min()
    assert curve(swept, "weight", "float64").errors.min() < 1e-9


def test_kinks_are_counted_where_steps_cross_them():
    x = np.array([[0.5, -0.001, 2.0]])
    swept = gradcheck.sweep(ReLU(), x)
    found = curve(swept, "x", "float64")
    assert (found.kinks[found.steps > 0.1] > 0).all()
    assert not found.kinks[found.steps < 1e-5].any()
    (errors,) = swept.maps
    assert not errors.kinks.any()
    (close,) = gradcheck.sweep(ReLU(), np.array([[0.5, -1e-5, 2.0]])).maps
    assert close.kinks.tolist() == [[False, True, False]]
    assert close.errors.max() < 1e-6


def test_the_map_shows_which_elements_are_wrong():
    class Wrong(Tanh):
        def backward(self, dy, cache, *, input_gradient=True):
            dx = super().backward(dy, cache)
            dx[1, 2] *= 1.01
            return dx

    (found,) = gradcheck.sweep(Wrong(), (3, 4)).maps
    assert found.worst == (1, 2)
    assert np.argwhere(found.errors > 1e-6).tolist() == [[1, 2]]


def test_of_a_large_tensor_some_elements_are_looked_at():
    (found,) = gradcheck.sweep(Tanh(), (40, 50)).maps
    assert np.isfinite(found.errors).sum() == 1024
    assert np.nanmax(found.errors) < 1e-6


def test_losses_have_curves_too():
    swept = gradcheck.sweep(SoftmaxCrossEntropy(), (4, 3), [2, 0, 1, 1])
    assert curve(swept, "outputs", "float64").errors.min() < 1e-9


def test_only_the_tensors_asked_for():
    swept = gradcheck.sweep(Linear(3, 2), (2, 3), tensors=["bias"])
    assert {found.tensor for found in swept.curves} == {"bias"} == {found.tensor for found in swept.maps}
    with pytest.raises(UnknownNameError, match="did you mean 'weight'"):
        gradcheck.sweep(Linear(3, 2), (2, 3), tensors=["weigth"])


def test_the_subject_is_left_as_it_was():
    layer = Linear(3, 2)
    before = {name: value.copy() for name, value in layer.state_dict().items()}
    gradcheck.sweep(layer, (2, 3))
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
        assert value.dtype == np.float32
    assert layer.weight.grad is None


def test_a_gradient_of_another_shape_has_no_curve():
    class Wrong(Layer):
        def forward(self, x, *, train=False, key=None):
            return x, x

        def backward(self, dy, cache, *, input_gradient=True):
            return dy[:1]

    with pytest.raises(ShapeError, match=r"a gradient of shape \(1, 3\) for x \(2, 3\): there is no curve"):
        gradcheck.sweep(Wrong(), (2, 3))


@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 3, 4), (2, 3, 4, 5), (1, 1, 1, 1)])
@pytest.mark.parametrize("tensor", ["x", "weight"])
def test_every_element_has_its_own_place_in_the_plane(tensor, shape):
    layout = _Layout.of(tensor, shape)
    places = set(zip(layout.row.ravel().tolist(), layout.column.ravel().tolist(), strict=True))
    assert len(places) == np.prod(shape)
    values = np.arange(np.prod(shape), dtype=float).reshape(shape)
    picture = layout.picture(values)
    assert picture.size == values.size
    np.testing.assert_array_equal(picture[layout.row, layout.column], values)
    for axis, length in zip((layout.rows, layout.columns), picture.shape, strict=True):
        assert axis.count * axis.size == length


def test_images_lie_whole_in_the_plane():
    x = np.arange(2 * 2 * 3 * 2).reshape(2, 2, 3, 2)
    picture = _Layout.of("x", x.shape).picture(x)
    np.testing.assert_array_equal(picture[2:4, 3:6], x[1, :, :, 1])
    weight = np.arange(2 * 3 * 2 * 4).reshape(2, 3, 2, 4)
    picture = _Layout.of("conv.weight", weight.shape).picture(weight)
    np.testing.assert_array_equal(picture[2:4, 9:12], weight[:, :, 1, 3])


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_picture_is_drawn(tmp_path, suffix):
    layer, path = MaxPool2d(2), tmp_path / f"pool{suffix}"
    swept = gradcheck.plot(gradcheck.check(layer, (1, 4, 4, 2)), layer, (1, 4, 4, 2), path=path)
    assert [found.tensor for found in swept.maps] == ["x"]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.stat().st_size > 5000
    if suffix == ".png":
        with Image.open(path) as picture:
            assert picture.size[0] > 1000


def test_of_many_tensors_the_worst_are_drawn(tmp_path):
    class Wrong(Linear):
        def backward(self, dy, cache, *, input_gradient=True):
            dx = super().backward(dy, cache)
            self.bias.grad *= 2
            return dx

    net = Sequential(*(Linear(3, 3) for _ in range(4)), wrong=Wrong(3, 2))
    report = gradcheck.check(net, (2, 3))
    swept = gradcheck.plot(report, net, (2, 3), path=tmp_path / "net.png")
    assert len(swept.maps) == 6
    assert "wrong.bias" in [found.tensor for found in swept.maps]


@pytest.mark.parametrize(
    ("path", "message"),
    [("net.jpg", "ends in .png, .svg, .pdf, got 'net.jpg'"), ("nowhere/net.png", "a folder that exists")],
)
def test_a_picture_that_cannot_be_drawn(path, message):
    report = gradcheck.check(ReLU(), (2, 3))
    with pytest.raises(ArgumentError, match=message):
        gradcheck.plot(report, ReLU(), (2, 3), path=path)
