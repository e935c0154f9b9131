from __future__ import annotations

import numpy as np
import pytest

from minidl.errors import ArgumentError, DTypeError, LabelError, ShapeError, UnknownNameError
from minidl.losses import Loss, MeanSquaredError, SoftmaxCrossEntropy


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


def test_cross_entropy_by_hand(normal):
    logits, labels = normal(3, 4), np.array([2, 0, 3])
    loss = SoftmaxCrossEntropy()
    value, cache = loss.forward(logits, labels)
    p = softmax(logits)
    np.testing.assert_allclose(value, -np.log(p[[0, 1, 2], labels]).mean(), rtol=1e-13)
    expected = (p - np.eye(4)[labels]) / 3
    np.testing.assert_allclose(loss.backward(cache), expected, rtol=1e-13)
    np.testing.assert_allclose(loss.backward(cache, scale=8.0), 8 * expected, rtol=1e-13)


def test_weights_smoothing_and_ignored_labels_by_hand(normal):
    logits, labels = normal(4, 3), np.array([2, 0, 9, 1])
    weight, smoothing = np.array([0.5, 2.0, 3.0]), 0.3
    log_p = np.log(softmax(logits))
    losses = []
    for n, y in enumerate(labels):
        q = [(1 - smoothing) * weight[c] * (c == y) + smoothing * weight[c] / 3 for c in range(3)]
        losses.append(-sum(q[c] * log_p[n, c] for c in range(3)) if y != 9 else 0)
    for reduction, expected in ("none", losses), ("sum", sum(losses)), ("mean", sum(losses) / (3 + 0.5 + 2)):
        loss = SoftmaxCrossEntropy(weight, smoothing, ignore_index=9, reduction=reduction)
        value, cache = loss.forward(logits, labels)
        np.testing.assert_allclose(value, expected, rtol=1e-13)
        gradient = loss.backward(cache)
        assert not gradient[2].any()
        # numerically, along each logit
        for n, c in np.ndindex(4, 3):
            step = np.zeros_like(logits)
            step[n, c] = 1e-6
            up, down = (np.sum(loss.forward(logits + sign * step, labels)[0]) for sign in (1, -1))
            assert abs((up - down) / 2e-6 - gradient[n, c]) < 1e-8


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_where_all_labels_are_ignored_loss_and_gradient_are_0(dtype, reduction):
    loss = SoftmaxCrossEntropy(reduction=reduction, ignore_index=0)
    value, cache = loss.forward(np.ones((2, 3), dtype), np.zeros(2, int))
    assert not np.any(value)
    assert not loss.backward(cache).any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extreme_logits_stay_finite(dtype):
    logits = np.array([[1e4, -1e4, 0], [-1e4, 1e4, 0]], dtype)
    value, cache = SoftmaxCrossEntropy(reduction="none").forward(logits, np.array([0, 0]))
    np.testing.assert_array_equal(value, np.array([0, 2e4], dtype))
    np.testing.assert_array_equal(SoftmaxCrossEntropy().backward(cache), [[0, 0, 0], [-1, 1, 0]])


def test_a_logit_of_minus_infinity_rules_a_class_out():
    logits = np.array([[0.0, -np.inf, 1.0]])
    value, cache = SoftmaxCrossEntropy().forward(logits, np.array([0]))
    np.testing.assert_allclose(value, np.log(1 + np.e), rtol=1e-14)
    p = np.array([1, 0, np.e]) / (1 + np.e)
    np.testing.assert_allclose(SoftmaxCrossEntropy().backward(cache), [p - [1, 0, 0]], rtol=1e-14)
    assert SoftmaxCrossEntropy().forward(logits, np.array([1]))[0] == np.inf


def test_a_nan_among_the_logits_shows_in_the_value():
    value, _ = SoftmaxCrossEntropy().forward(np.array([[0.0, np.nan, 1.0]]), np.array([0]))
    assert np.isnan(value)


def test_the_value_at_the_start_is_the_logarithm_of_the_classes():
    value, _ = SoftmaxCrossEntropy(label_smoothing=0.1).forward(np.zeros((2, 1000)), np.array([3, 999]))
    np.testing.assert_allclose(value, np.log(1000), rtol=1e-14)


def test_labels_may_be_of_any_integer_type(normal):
    logits = normal(3, 4)
    values = {
        float(SoftmaxCrossEntropy().forward(logits, np.array([0, 1, 3], dtype))[0])
        for dtype in ("uint8", "int8", "int32", "int64", "uint64")
    }
    assert len(values) == 1
    assert float(SoftmaxCrossEntropy().forward(logits, [0, 1, 3])[0]) in values


def test_one_label_for_each_pixel(normal):
    logits, labels = normal(2, 3, 4, 5), np.random.default_rng(0).integers(0, 5, (2, 3, 4))
    value, cache = SoftmaxCrossEntropy().forward(logits, labels)
    flat, flat_cache = SoftmaxCrossEntropy().forward(logits.reshape(-1, 5), labels.ravel())
    np.testing.assert_allclose(value, flat, rtol=1e-14)
    gradient = SoftmaxCrossEntropy().backward(flat_cache).reshape(logits.shape)
    np.testing.assert_array_equal(SoftmaxCrossEntropy().backward(cache), gradient)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([0, 3], LabelError, "expected labels from 0 to 2, got 3 at position 1"),
        ([-1, 0], LabelError, "expected labels from 0 to 2, got -1 at position 0"),
        ([0.0, 1.0], LabelError, "expected integer labels, got float64"),
        ([True, False], LabelError, "expected integer labels, got bool"),
        ([0, 1, 2], ShapeError, r"expected labels of shape \(2,\) for logits \(2, 3\), got \(3,\)"),
        ([[1, 0, 0], [0, 1, 0]], ShapeError, r"expected labels of shape \(2,\) for logits \(2, 3\), got \(2, 3\)"),
    ],
)
def test_labels_that_do_not_fit(labels, error, message):
    with pytest.raises(error, match=rf"^SoftmaxCrossEntropy\(\): {message}$"):
        SoftmaxCrossEntropy().forward(np.zeros((2, 3)), np.array(labels))


def test_the_position_of_a_wrong_pixel_label():
    with pytest.raises(LabelError, match=r"got 7 at position \(1, 0\)"):
        SoftmaxCrossEntropy().forward(np.zeros((2, 2, 3)), np.array([[0, 1], [7, 8]]))


def test_an_ignored_label_may_be_out_of_range():
    value, _ = SoftmaxCrossEntropy(ignore_index=255).forward(np.zeros((2, 3)), np.array([255, 1]))
    np.testing.assert_allclose(value, np.log(3))


@pytest.mark.parametrize(
    ("logits", "error", "message"),
    [
        (np.zeros((2, 3), int), DTypeError, "expected logits of float32 or float64, got int64"),
        ([[0.0, 1.0]], DTypeError, "expected logits of float32 or float64, got list"),
        (np.zeros(3), ShapeError, r"expected logits of shape \(N, …, C\), none of them 0, got \(3,\)"),
        (np.zeros((0, 3)), ShapeError, r"expected logits of shape \(N, …, C\), none of them 0, got \(0, 3\)"),
    ],
)
def test_logits_that_do_not_fit(logits, error, message):
    with pytest.raises(error, match=message):
        SoftmaxCrossEntropy().forward(logits, np.array([0, 1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": -0.1}, r"label_smoothing: expected a number in \[0, 1\], got -0.1"),
        ({"label_smoothing": 1.1}, r"label_smoothing: expected a number in \[0, 1\], got 1.1"),
        ({"weight": [1, -1]}, "weight: expected one number ≥ 0 for each class"),
        ({"weight": [[1.0, 2.0]]}, "weight: expected one number ≥ 0 for each class"),
        ({"weight": [1, float("nan")]}, "weight: expected one number ≥ 0 for each class"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ArgumentError, match=f"^SoftmaxCrossEntropy: {message}"):
        SoftmaxCrossEntropy(**options)


def test_one_weight_for_each_class():
    with pytest.raises(ShapeError, match="weight: expected 3 numbers, one a class, got 2"):
        SoftmaxCrossEntropy([1, 2]).forward(np.zeros((1, 3)), np.array([0]))


@pytest.mark.parametrize("loss", [SoftmaxCrossEntropy, MeanSquaredError])
def test_unknown_reduction(loss):
    with pytest.raises(UnknownNameError, match=f"unknown reduction of {loss.__name__} 'meen': did you mean 'mean'"):
        loss(reduction="meen")


def test_mean_squared_error_by_hand():
    outputs, targets = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0.0, 2.0], [5.0, 1.0]])
    for reduction, value, share in ("mean", 14 / 4, 1 / 4), ("sum", 14, 1), ("none", [[1, 0], [4, 9]], 1):
        loss = MeanSquaredError(reduction)
        got, cache = loss.forward(outputs, targets)
        np.testing.assert_array_equal(got, value)
        np.testing.assert_array_equal(loss.backward(cache, 3.0), 6 * share * (outputs - targets))


@pytest.mark.parametrize(
    ("outputs", "targets", "error", "message"),
    [
        (
            np.zeros((2, 3)),
            np.zeros((2, 1)),
            ShapeError,
            r"expected targets of shape \(2, 3\), not empty, got \(2, 1\)",
        ),
        (np.zeros((0, 3)), np.zeros((0, 3)), ShapeError, "not empty"),
        (np.zeros(3), np.zeros(3, np.float32), DTypeError, "expected targets of float64, got float32"),
        (np.zeros(3, int), np.zeros(3), DTypeError, "expected outputs of float32 or float64, got int64"),
    ],
)
def test_mean_squared_error_of_what_does_not_fit(outputs, targets, error, message):
    with pytest.raises(error, match=rf"^MeanSquaredError\(\): .*{message}"):
        MeanSquaredError().forward(outputs, targets)


def test_losses_say_how_they_differ_from_the_plain_one():
    assert repr(SoftmaxCrossEntropy()) == "SoftmaxCrossEntropy()"
    assert repr(SoftmaxCrossEntropy(label_smoothing=0.1)) == "SoftmaxCrossEntropy(label_smoothing=0.1)"
    assert repr(MeanSquaredError("sum")) == "MeanSquaredError(reduction=sum)"


def test_a_loss_must_say_what_it_does():
    for call in (lambda: Loss().forward(1, 2), lambda: Loss().backward(1)):
        with pytest.raises(NotImplementedError, match="Loss does not define"):
            call()
