"""The summary against the numbers of the literature."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time

import pytest

from minidl.combine import Concat, Sequential, Sum
from minidl.errors import ShapeError
from minidl.layer import Layer
from minidl.layers import Conv2d, Flatten, GlobalAvgPool2d, Linear, MaxPool2d, ReLU
from minidl.models import alexnet, alexnet_mini, vgg16
from minidl.summary import Row, Summary, View, draw, summarize
from minidl.window import Window


def rows(summary: Summary) -> dict[str, Row]:
    return {row.name: row for row in summary.rows}


def test_alexnet_sees_what_the_literature_says():
    found = rows(summarize(alexnet(), (227, 227, 3)))
    views = {"conv1": (11, 4), "pool1": (19, 8), "conv2": (51, 8), "pool2": (67, 16), "conv3": (99, 16)}
    views |= {"conv4": (131, 16), "conv5": (163, 16), "relu5": (163, 16), "pool5": (195, 32)}
    for name, (field, stride) in views.items():
        assert found[name].view == View((field, field), (stride, stride)), name
    assert found["flatten"].view is None
    assert found["fc8"].view is None


def test_vgg16_sees_212_pixels():
    assert rows(summarize(vgg16(), (224, 224, 3)))["pool5"].view == View((212, 212), (32, 32))


def test_alexnet_costs_what_the_literature_says():
    summary = summarize(alexnet(), (227, 227, 3))
    found = rows(summary)
    parameters = {"conv1": 34_944, "conv2": 307_456, "conv3": 885_120, "conv4": 663_936, "conv5": 442_624}
    parameters |= {"fc6": 37_752_832, "fc7": 16_781_312, "fc8": 4_097_000}
    assert {name: row.parameters for name, row in found.items() if row.parameters} == parameters
    assert summary.parameters == sum(parameters.values()) == 60_965_224
    assert summary.macs == 724_406_816
    assert summary.output_shape == (1000,)
    assert found["conv1"].output_shape == (55, 55, 96)
    assert found["conv1"].activation_bytes == 4 * 55 * 55 * 96
    columns = {"conv1": 4.19, "conv2": 6.67, "conv3": 1.49, "conv4": 2.23, "conv5": 2.23}
    for name, mebibytes in columns.items():
        assert found[name].column_bytes / 2**20 == pytest.approx(mebibytes, abs=0.005), name
    assert summary.column_bytes == found["conv2"].column_bytes


def test_vgg_columns_need_chunks():
    assert rows(summarize(vgg16(), (224, 224, 3)))["conv1_2"].column_bytes == 110.25 * 2**20


def test_nothing_is_drawn():
    net = vgg16()
    start = time.perf_counter()
    summary = summarize(net, (224, 224, 3))
    assert time.perf_counter() - start < 0.5
    assert summary.parameters == 138_357_544
    assert not any(parameter.is_drawn for parameter in net.parameters().values())


def test_branches():
    body = Sequential(conv1=Conv2d(3, 4, 3, padding=1), relu=ReLU(), conv2=Conv2d(4, 3, 5, padding=2))
    net = Sequential(
        block=Sum(body=body, shortcut=Sequential()),
        stack=Concat(Conv2d(3, 2, 1), MaxPool2d(3, stride=1, padding=1)),
        pool=GlobalAvgPool2d(),
        flatten=Flatten(),
        fc=Linear(5, 2),
    )
    summary = summarize(net, (8, 9, 3))
    found = rows(summary)
    names = ["block", "block.body", "block.body.conv1", "block.body.relu", "block.body.conv2", "block.shortcut"]
    assert list(found) == [*names, "stack", "stack.0", "stack.1", "pool", "flatten", "fc"]
    assert [found[name].depth for name in names] == [0, 1, 2, 2, 2, 1]
    assert found["block"].container == "branches"
    assert found["block.body"].container == "sequence"
    assert found["fc"].container is None
    # The widest branch counts.
    assert found["block.shortcut"].view == View((1, 1))
    assert found["block"].view == View((7, 7))
    assert found["stack"].view == View((9, 9))
    assert found["stack"].output_shape == (8, 9, 5)
    # A layer without a window that changes the map has looked at all of it.
    assert found["pool"].view == View((9 + 7, 9 + 8))
    # A container's numbers are those of its layers, and the totals count each once.
    assert found["block"].parameters == found["block.body"].parameters == 4 * 28 + 3 * 101
    assert summary.parameters == sum(row.parameters for row in summary.rows if row.container is None)
    assert summary.macs == net.macs((8, 9, 3))


def test_views_of_uneven_windows():
    window = Window.of((3, 1), stride=(2, 1), dilation=(2, 1))
    assert View((5, 5), (2, 2)).through(window) == View((5 + 4 * 2, 5), (4, 2))


def test_a_shared_layer_counts_once():
    shared = Linear(4, 4)
    summary = summarize(Sequential(a=shared, relu=ReLU(), b=shared), (4,))
    assert [row.parameters for row in summary.rows] == [20, 0, 0]
    assert summary.parameters == 20


def test_a_single_layer_and_a_layer_of_ones_own():
    class Halve(Layer):
        def __init__(self) -> None:
            self.inner = Linear(4, 4)

    assert [row.name for row in summarize(Linear(4, 3), (4,)).rows] == ["Linear"]
    assert summarize(Halve(), (4,)).rows[0].parameters == 20


def test_errors_name_the_layer():
    net = Sequential(conv=Conv2d(3, 8, 3), block=Sum(body=Conv2d(8, 8, 3, padding=1), other=Conv2d(4, 8, 1)))
    with pytest.raises(ShapeError, match=r"^block\.other: Conv2d\(4→8, 1×1\): expected 4 channels, got 8 in x 6×6×8$"):
        summarize(net, (8, 8, 3))
    uneven = Sequential(block=Sum(body=Conv2d(3, 8, 3), shortcut=Sequential()))
    with pytest.raises(ShapeError, match=r"^block: Sum of 2: expected branches of equal output shapes"):
        summarize(uneven, (8, 8, 3))


def test_json():
    plain = json.loads(json.dumps(summarize(alexnet_mini(), (32, 32, 3)).to_dict()))
    assert plain["parameters"] == 368_842
    assert plain["rows"][0]["receptive_field"] == [5, 5]
    assert plain["rows"][0]["output_shape"] == [32, 32, 32]
    assert plain["rows"][-1]["receptive_field"] is None


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
def test_text_fits(width):
    from rich.console import Console

    text = io.StringIO()
    Console(file=text, width=width, color_system=None).print(summarize(alexnet(), (227, 227, 3)))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    if width >= 80:
        assert "60,965,224 parameters" in text.getvalue()
        assert "195/32" in text.getvalue()
        assert "…" not in text.getvalue()


def test_str():
    assert "conv1    Conv2d(3→96, 11×11, stride=4)" in str(summarize(alexnet(), (227, 227, 3)))


def test_drawing():
    net = Sequential(conv=Conv2d(3, 64, 3, stride=2, padding=1), relu=ReLU(), flatten=Flatten(), fc=Linear(4096, 10))
    picture = draw(summarize(net, (16, 16, 3))).splitlines()
    assert picture[-3].split() == ["input", "conv", "fc"]  # ReLU and Flatten hold the same numbers
    assert picture[-2].split() == ["16×16", "8×8"]
    assert picture[-1].split() == ["×3", "×64", "10"]
    assert picture[0].count("█") == 1  # only the input is that high
    assert draw(summarize(Sequential(ReLU()), (4,))) == ""


def test_drawing_wraps():
    picture = draw(summarize(vgg16(), (224, 224, 3)), width=50).splitlines()
    assert max(map(len, picture)) <= 50
    assert picture.count("") >= 1


def test_import_needs_no_rich():
    code = "import sys, minidl.summary; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
