from __future__ import annotations

import numpy as np
import pytest

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


def test_an_ignored_label_may_be_out_of_range():
    value, _ = SoftmaxCrossEntropy(ignore_index=255).forward(np.zeros((2, 3)), np.array([255, 1]))
    np.testing.assert_allclose(value, np.log(3))


def test_mean_squared_error_by_hand():
    outputs, targets = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0.0, 2.0], [5.0, 1.0]])
    for reduction, value, share in ("mean", 14 / 4, 1 / 4), ("sum", 14, 1), ("none", [[1, 0], [4, 9]], 1):
        loss = MeanSquaredError(reduction)
        got, cache = loss.forward(outputs, targets)
        np.testing.assert_array_equal(got, value)
        np.testing.assert_array_equal(loss.backward(cache, 3.0), 6 * share * (outputs - targets))


def test_losses_say_how_they_differ_from_the_plain_one():
    assert repr(SoftmaxCrossEntropy()) == "SoftmaxCrossEntropy()"
    assert repr(SoftmaxCrossEntropy(label_smoothing=0.1)) == "SoftmaxCrossEntropy(label_smoothing=0.1)"
    assert repr(MeanSquaredError("sum")) == "MeanSquaredError(reduction=sum)"


def test_a_loss_must_say_what_it_does():
    for call in (lambda: Loss().forward(1, 2), lambda: Loss().backward(1)):
        with pytest.raises(NotImplementedError, match="Loss does not define"):
            call()
