"""What training minimises.

A loss turns outputs and targets into a value, and back into the gradient of the outputs:

    value, cache = loss.forward(logits, labels)
    dlogits = loss.backward(cache)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, Literal, TypeAlias

import numpy as np

from minidl.arrays import (
    Array,
    array_module,
    as_array,
    device_of,
    has_float_dtype,
    is_array,
    require_device,
    to_device,
    to_host,
)
from minidl.errors import (
    ArgumentError,
    DTypeError,
    LabelError,
    ShapeError,
    UnknownNameError,
    expect_integer,
    expect_number,
    told,
)
from minidl.layer import expect_kinds
from minidl.ops.softmax_cross_entropy import softmax_cross_entropy, softmax_cross_entropy_gradient

Reduction: TypeAlias = Literal["mean", "sum", "none"]


class Loss:
    """A function of outputs and targets, to be made small."""

    def forward(self, outputs: Array, targets: Array) -> tuple[Array, Any]:
        """The value, and what `backward` needs."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def backward(self, cache: Any, scale: Any = 1.0) -> Array:
        """scale · ∂value/∂outputs. With `reduction="none"`, scale may be an array of the shape of the value.

        Raises: ArgumentError for a cache that is not of this loss, or another scale.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define backward")

    def kept(self, cache: Any, *kinds: Callable[[Any], bool]) -> Any:
        """The cache, after checking that it is a tuple of the kinds.

        Raises: ArgumentError.
        """
        return expect_kinds(self, cache, kinds)

    def check_scale(self, scale: Any, like: Array) -> None:
        """Check that scale is one number, or an array of the shape and the device of another.

        Raises: ArgumentError, DeviceError.
        """
        shape = like.shape
        numbers = is_array(scale) and scale.dtype.kind in "fiu" and scale.shape in ((), shape)
        if not numbers and (not isinstance(scale, Real) or isinstance(scale, bool)):
            raise ArgumentError(f"{self}: scale: expected a number, or an array of shape {shape}, got {told(scale)}")
        require_device(f"{self}: scale", scale, like)

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self)).parameters
        own = {name: getattr(self, name) for name in defaults if hasattr(self, name)}
        told = (f"{name}={value}" for name, value in own.items() if not np.array_equal(value, defaults[name].default))
        return f"{type(self).__name__}({', '.join(told)})"


class SoftmaxCrossEntropy(Loss):
    """loss_n = −Σ_c q_nc · log p_nc,    p = softmax(logits),    ∂loss_n/∂logits_n = p_n · Σ_c q_nc − q_n

    where the target distribution q_n puts the class weight w_y on the label y and, with label smoothing ε, spreads
    a part of it over all C classes: q_nc = (1 − ε)·w_y·[c = y] + ε·w_c/C. Without weights and smoothing this is
    the familiar −log p_ny with the gradient p − onehot(y).

    The mean divides by Σ_n w_{y_n}, which is the number of labels that are not `ignore_index` where no weights are
    given (PyTorch's rule). Where that is 0, as with all labels ignored, loss and gradient are 0.

    Shapes: logits (N, …, C), integer labels (N, …) on any device → a number, or (N, …) with `reduction="none"`.
    Kept for backward: log p and the labels.
    Raises: ArgumentError, UnknownNameError for unusable settings; ShapeError, DTypeError, LabelError for logits or
        labels that do not fit.
    Source: Krizhevsky, Sutskever, Hinton 2012, §3.5; smoothing: Szegedy et al. 2015, arXiv 1512.00567, §7.

    weight: one factor per class, for classes of unequal worth.
    ignore_index: labels of this value count for nothing.

    >>> loss, cache = SoftmaxCrossEntropy().forward(np.array([[0.0, 0.0]]), np.array([1]))
    >>> print(f"{loss:.6f}")  # log 2
    0.693147
    """

    def __init__(
        self,
        weight: Sequence[float] | Array | None = None,
        label_smoothing: float = 0.0,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
    ) -> None:
        self.weight = None if weight is None else _class_weights(weight)
        self.label_smoothing = expect_number("SoftmaxCrossEntropy", "label_smoothing", label_smoothing, "[0, 1]")
        self.ignore_index = expect_integer("SoftmaxCrossEntropy", "ignore_index", ignore_index, least=-(1 << 63))
        self.reduction = _checked_reduction(self, reduction)

    def forward(self, outputs: Array, targets: Array) -> tuple[Array, tuple[Array, Array, Any]]:
        """See `Loss.forward`; outputs are logits, targets are labels."""
        labels = self._checked_labels(outputs, targets)
        xp = array_module(outputs)
        flat, weight = labels.reshape(-1), self._weights(outputs)
        losses, log_p = softmax_cross_entropy(outputs.reshape(len(flat), -1), flat, weight, self.label_smoothing)
        cache = log_p.reshape(outputs.shape), labels
        if self.reduction == "none":
            return losses.reshape(labels.shape), (*cache, 1.0)
        total = losses.sum()
        if self.reduction == "sum":
            return total, (*cache, 1.0)
        counted = (weight[flat] * (flat >= 0)).sum()
        share = xp.where(counted > 0, 1 / xp.maximum(counted, xp.finfo(outputs.dtype).tiny), 0).astype(outputs.dtype)
        return total * share, (*cache, share)

    def backward(self, cache: tuple[Array, Array, Any], scale: Any = 1.0) -> Array:
        """See `Loss.backward`."""
        log_p, labels, share = self.kept(cache, is_array, is_array, _is_scalar)
        self.check_scale(scale, labels)
        xp = array_module(log_p)
        dlosses = xp.broadcast_to(xp.asarray(scale * share, log_p.dtype), labels.shape).reshape(-1)
        flat, weight = labels.reshape(-1), self._weights(log_p)
        flat_log_p = log_p.reshape(len(flat), -1)
        dlogits = softmax_cross_entropy_gradient(dlosses, flat_log_p, flat, weight, self.label_smoothing)
        return dlogits.reshape(log_p.shape)

    def _weights(self, like: Array) -> Array:
        xp, C = array_module(like), like.shape[-1]
        weight: Array = xp.ones(C, like.dtype) if self.weight is None else xp.asarray(self.weight, like.dtype)
        return weight

    def _checked_labels(self, logits: Array, labels: Array) -> Array:
        """The labels where the logits are, −1 in place of `ignore_index`. They are looked at on the host, so those that
        come from there cost no wait for a GPU.
        """
        _require_floats(self, "logits", logits)
        if logits.ndim < 2 or 0 in logits.shape:
            raise ShapeError(f"{self}: expected logits of shape (N, …, C), none of them 0, got {logits.shape}")
        C = logits.shape[-1]
        labels = to_host(labels) if is_array(labels) else as_array(f"{self}: labels", labels, np.empty(0))
        if labels.dtype.kind not in "iu":
            raise LabelError(f"{self}: expected integer labels, got {labels.dtype.name}")
        if labels.shape != logits.shape[:-1]:
            raise ShapeError(
                f"{self}: expected labels of shape {logits.shape[:-1]} for logits {logits.shape}, got {labels.shape}"
            )
        wrong = (labels != self.ignore_index) & ((labels < 0) | (labels >= C))
        if wrong.any():
            where = tuple(int(i) for i in np.argwhere(wrong)[0])
            place = where[0] if len(where) == 1 else where
            raise LabelError(f"{self}: expected labels from 0 to {C - 1}, got {labels[where]} at position {place}")
        if self.weight is not None and len(self.weight) != C:
            raise ShapeError(f"{self}: weight: expected {C} numbers, one a class, got {len(self.weight)}")
        labels = np.where(labels == self.ignore_index, -1, labels.astype(np.int64, copy=False))
        return to_device(labels, device_of(logits))


class MeanSquaredError(Loss):
    """loss = mean (outputs − targets)²,    doutputs = 2·(outputs − targets) / size

    Shapes: outputs and targets of one shape → a number, or that shape with `reduction="none"`.
    Kept for backward: outputs − targets.
    Raises: ShapeError, DTypeError where they differ in shape or dtype.
    """

    def __init__(self, reduction: Reduction = "mean") -> None:
        self.reduction = _checked_reduction(self, reduction)

    def forward(self, outputs: Array, targets: Array) -> tuple[Array, tuple[Array, float]]:
        """See `Loss.forward`."""
        _require_floats(self, "outputs", outputs)
        targets = as_array(f"{self}: targets", targets, outputs)
        if outputs.shape != targets.shape or outputs.size == 0:
            raise ShapeError(f"{self}: expected targets of shape {outputs.shape}, not empty, got {targets.shape}")
        if outputs.dtype != targets.dtype:
            raise DTypeError(f"{self}: expected targets of {outputs.dtype.name}, got {targets.dtype.name}")
        difference = outputs - targets
        squares = difference * difference
        if self.reduction == "none":
            return squares, (difference, 1.0)
        if self.reduction == "sum":
            return squares.sum(), (difference, 1.0)
        return squares.mean(), (difference, 1 / difference.size)

    def backward(self, cache: tuple[Array, float], scale: Any = 1.0) -> Array:
        """See `Loss.backward`."""
        difference, share = self.kept(cache, is_array, _is_scalar)
        self.check_scale(scale, difference)
        doutputs: Array = difference * array_module(difference).asarray(2 * share * scale, difference.dtype)
        return doutputs


def _checked_reduction(loss: Loss, reduction: Reduction) -> Reduction:
    if reduction not in ("mean", "sum", "none"):
        raise UnknownNameError(f"reduction of {type(loss).__name__}", reduction, ["mean", "sum", "none"])
    return reduction


def _require_floats(loss: Loss, name: str, x: Array) -> None:
    if not is_array(x) or not has_float_dtype(x):
        got = x.dtype.name if is_array(x) else type(x).__name__
        got += "" if not is_array(x) or x.dtype.isnative else " of foreign byte order"
        raise DTypeError(f"{loss}: expected {name} of float32 or float64, got {got}")


def _class_weights(weight: Any) -> Array:
    numbers = as_array("SoftmaxCrossEntropy: weight", weight, np.empty(0))
    if numbers.ndim != 1 or numbers.dtype.kind not in "fiu" or not ((numbers >= 0) & (numbers < np.inf)).all():
        raise ArgumentError(f"SoftmaxCrossEntropy: weight: expected one number ≥ 0 for each class, got {told(weight)}")
    return numbers.astype(np.float64)


def _is_scalar(value: object) -> bool:
    """Whether it is a number, or an array of a single one without axes."""
    return isinstance(value, float) or getattr(value, "shape", None) == ()
