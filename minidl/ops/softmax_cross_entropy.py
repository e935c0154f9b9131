"""The cross entropy between softmax and labels, and its gradient."""

from __future__ import annotations

from minidl.accelerate import accelerated
from minidl.arrays import Array, array_module
from minidl.ops.softmax import log_softmax


@accelerated
def softmax_cross_entropy(logits: Array, labels: Array, weight: Array, label_smoothing: float) -> tuple[Array, Array]:
    """loss_n = −(1 − ε)·w_y·log p_ny − ε/C·Σ_c w_c·log p_nc,    p = softmax(logits),    ε = label_smoothing

    and 0 where the label y is negative. A class of weight 0, or of probability 0 without smoothing, adds nothing unless
    it is the label's.

    logits (N, C), integer labels (N,), weight (C,) → losses (N,), log p (N, C).
    """
    xp = array_module(logits)
    log_p = log_softmax(logits)
    rows, chosen, counts = _chosen(labels, log_p)
    losses = _product(-(1 - label_smoothing) * counts * weight[chosen], log_p[rows, chosen])
    if label_smoothing:
        losses -= _product(counts * (label_smoothing / len(weight)), _product(weight, log_p).sum(axis=-1))
    return xp.asarray(losses, logits.dtype), log_p


@accelerated
def softmax_cross_entropy_gradient(
    dlosses: Array, log_p: Array, labels: Array, weight: Array, label_smoothing: float
) -> Array:
    """dlogits_n = dloss_n · (p_n·Σ_c q_nc − q_n),    q_nc = (1 − ε)·w_y·[c = y] + ε·w_c/C

    dlosses (N,), log p (N, C), labels (N,), weight (C,) → dlogits (N, C).
    """
    rows, chosen, counts = _chosen(labels, log_p)
    dlosses = dlosses * counts
    at_label = (1 - label_smoothing) * weight[chosen]
    everywhere = label_smoothing / len(weight) * weight
    dlogits: Array = array_module(log_p).exp(log_p)
    dlogits *= (dlosses * (at_label + everywhere.sum()))[:, None]
    if label_smoothing:
        dlogits -= dlosses[:, None] * everywhere
    dlogits[rows, chosen] -= dlosses * at_label
    return dlogits


def _chosen(labels: Array, log_p: Array) -> tuple[Array, Array, Array]:
    """Row and column of each label in log p, the first column for those that are negative, and 1 or 0 for them."""
    xp = array_module(labels)
    return xp.arange(len(labels)), xp.maximum(labels, 0), (labels >= 0).astype(log_p.dtype)


def _product(factor: Array, log_p: Array) -> Array:
    """factor · log p, and 0 where the factor is 0, though a logit of −∞ rules a class out: 0·∞ is 0 here."""
    xp = array_module(log_p)
    product: Array = factor * xp.where(factor != 0, log_p, 0)
    return product
