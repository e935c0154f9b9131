"""Mistakes that one could make in minidl, and the tests that must notice them.

The mistakes that spoil a gradient are in `minidl/faults.py`, where `minidl gradcheck --break` finds them, and part of
this table. Most of the others no gradient check can see: forward and backward agree, and are both wrong, or the mistake
lies in a corner, in a kernel, in an optimiser or in the training.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from minidl import faults as taught

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Fault:
    """A mistake in one file.

    names: what the id of the failing test must contain, small and without underscores: "localresponsenorm" stands in
        test_local_response_norm and in test_gradients_are_right[cpu-LocalResponseNorm: even].
    file: from the repository's root.
    changes: pairs of the text that stands there, exactly once, and the text in its place.
    tests: pytest's arguments. The narrower, the sooner done.
    """

    name: str
    names: str
    file: str
    changes: tuple[tuple[str, str], ...]
    tests: tuple[str, ...]

    @property
    def id(self) -> str:
        """What pytest calls it.

        >>> Fault("the slope at 0 is 1", "relu", "minidl/ops/relu.py", (), ()).id
        'ops/relu: the slope at 0 is 1'
        """
        return f"{self.file.removeprefix('minidl/').removesuffix('.py')}: {self.name}"

    @property
    def fits(self) -> bool:
        """Whether each text to change stands in the file exactly once."""
        source = (REPOSITORY / self.file).read_text(encoding="utf-8")
        return all(source.count(correct) == 1 for correct, _ in self.changes)

    def source(self) -> str:
        """The file with the mistake in it."""
        source = (REPOSITORY / self.file).read_text(encoding="utf-8")
        for correct, wrong in self.changes:
            source = source.replace(correct, wrong)
        return source

    def named_by(self, node: str) -> bool:
        """Whether the id of a test names what is broken."""
        return self.names in node.replace("_", "").lower()


def contract(line: str, device: str = "reference") -> tuple[str, ...]:
    """The laws of a layer, for the lines of the catalogue that contain some words."""
    return "tests/test_contract.py", "-k", f"{device} and {line}"


def oracle(subject: str) -> tuple[str, ...]:
    """What a subject computes, by kernels and by the ops' bodies, against a loop from its equation."""
    return "tests/test_oracles.py", "-k", f"agree and {subject} and not Global"


def of(file: str, words: str) -> tuple[str, ...]:
    """The tests of a file whose names contain some words."""
    return f"tests/{file}", "-k", words


TAUGHT = [
    Fault(fault.says, fault.subject.lower(), fault.file, ((fault.correct, fault.wrong),), contract(fault.subject))
    for fault in taught.FAULTS
]

OPS, LAYERS = "minidl/ops", "minidl/layers"
LOSSES, OPTIM, COMBINE, WINDOW = "minidl/losses.py", "minidl/optim.py", "minidl/combine.py", "minidl/window.py"

# fmt: off
OPS_FAULTS = [
    Fault("filters slide with stride 1 in the weight gradient", "conv2d", f"{OPS}/conv2d.py",
          (("window).reshape(N * OH * OW, KH * KW * C // groups)\n        product",
            "Window(window.kernel, (1, 1), window.padding, window.dilation, window.rounding))"
            "[:, :OH, :OW].reshape(N * OH * OW, KH * KW * C // groups)\n        product"),),
          contract("Conv2d")),
    Fault("dilation is forgotten in col2im", "conv2d", f"{OPS}/conv2d.py",
          (("in window.taps(OH, OW):\n        padded",
            "in Window(window.kernel, window.stride).taps(OH, OW):\n        padded"),),
          contract("Conv2d")),
    Fault("top and bottom padding are swapped", "conv2d", f"{OPS}/conv2d.py",
          (("*window.full_padding(H, W), (0, 0)))", "*(pair[::-1] for pair in window.full_padding(H, W)), (0, 0)))"),),
          contract("Conv2d")),
    Fault("groups of outputs see the inputs of another group", "conv2d", f"{OPS}/conv2d.py",
          (("slice(g * outputs, (g + 1) * outputs)", "slice((groups - 1 - g) * outputs, (groups - g) * outputs)"),),
          oracle("Conv2d")),
    Fault("dx is a product with the weight as it lies", "linear", f"{OPS}/linear.py",
          (("dy @ weight.T", "dy @ weight.reshape(weight.shape[::-1])"),),
          contract("Linear")),
    Fault("the window is turned around, forward and backward", "localresponsenorm", f"{OPS}/local_response_norm.py",
          (("[(before, after)]", "[(after, before)]"),),
          oracle("LocalResponseNorm")),
    Fault("padding may win", "maxpool2d", f"{OPS}/max_pool2d.py",
          (("        better &= inside[rows, columns]\n", ""),),
          oracle("MaxPool2d")),
    Fault("the last of equals wins", "maxpool2d", f"{OPS}/max_pool2d.py",
          (("(candidate > y)", "(candidate >= y)"),),
          oracle("MaxPool2d")),
    Fault("a NaN loses", "maxpool2d", f"{OPS}/max_pool2d.py",
          ((" | (xp.isnan(candidate) & ~xp.isnan(y))", ""),),
          of("kernels/test_pool2d_kernels.py", "max_pool2d")),
    Fault("what hangs over the padding counts", "avgpool2d", WINDOW,
          (("before + n + after) if include_padding", "before + n + 9 * after + 9) if include_padding"),),
          oracle("AvgPool2d")),
    Fault("the window hangs over by one too many", "window", WINDOW,
          (("* self.stride[axis] < n + before", "* self.stride[axis] <= n + before"),),
          of("test_window.py", "fit")),
    Fault("the slope at 0 is 1", "relu", f"{OPS}/relu.py",
          (("(y > 0,", "(y >= 0,"),),
          of("test_ops.py", "relu")),
    Fault("without the maximum subtracted", "softmax", f"{OPS}/softmax.py",
          (("exponential = xp.exp(x - x.max(axis=-1, keepdims=True))", "exponential = xp.exp(x)"),),
          of("test_ops.py", "softmax")),
    Fault("dy is written into", "softmax", f"{OPS}/softmax.py",
          (("    dx: Array = y * (dy - (dy * y).sum(axis=-1, keepdims=True))",
            "    dy -= (dy * y).sum(axis=-1, keepdims=True)\n    dx: Array = y * dy"),),
          contract("written_into and Softmax")),
    Fault("the logarithm of the sum is added", "logsoftmax", f"{OPS}/softmax.py",
          (("y -= xp.log", "y += xp.log"),),
          contract("LogSoftmax")),
    Fault("without 1/(1 − p)", "dropout", f"{OPS}/dropout.py",
          (("type(1 / (1 - p))", "type(1)"),),
          oracle("Dropout")),
    Fault("a part of a batch draws from its own first sample on", "dropout", f"{OPS}/dropout.py",
          (("arange(key.sample, key.sample + N,", "arange(N,"),),
          of("kernels/test_channel_kernels.py", "dropout")),
    Fault("the sum is in float32", "channelsum", f"{OPS}/channel_sum.py",
          (("x.sum(axis=tuple(range(x.ndim - 1)), dtype=np.float64)", "x.sum(axis=tuple(range(x.ndim - 1)))"),),
          of("test_ops.py", "channel_sums")),
    Fault("weight decay is applied twice", "sgd", f"{OPS}/sgd.py",
          (("velocity -= lr * descent", "velocity -= lr * (descent + weight_decay * value)"),),
          oracle("SGD")),
    Fault("the velocity turns around", "sgd", f"{OPS}/sgd.py",
          (("velocity += descent", "velocity[...] = descent - velocity"),),
          oracle("SGD")),
    Fault("Nesterov looks ahead by the whole velocity", "sgd", f"{OPS}/sgd.py",
          (("value += momentum * velocity - lr", "value += velocity - lr"),),
          oracle("SGD")),
    Fault("the mean's start at 0 stays", "adamw", f"{OPS}/adamw.py",
          (("lr / (1 - beta1**step)", "lr"),),
          oracle("AdamW")),
    Fault("weight decay goes through the means", "adamw", f"{OPS}/adamw.py",
          (("    mean *= beta1\n", "    grad = grad + weight_decay * value\n    mean *= beta1\n"),
           ("    value *= 1 - lr * weight_decay\n", "")),
          oracle("AdamW")),
]

LAYER_FAULTS = [
    Fault("the running variance follows the sum over m", "batchnorm", f"{LAYERS}/batch_norm2d.py",
          (("var * var.dtype.type(m / (m - 1))", "var"),),
          oracle("BatchNorm2d")),
    Fault("the running mean stays behind", "batchnorm", f"{LAYERS}/batch_norm2d.py",
          (("(1 - momentum) * running.value + momentum * batch", "momentum * running.value + (1 - momentum) * batch"),),
          oracle("BatchNorm2d")),
    Fault("a tie counts twice", "globalmaxpool", f"{LAYERS}/global_max_pool2d.py",
          (("(winners, x.shape) if train", "(x == y[:, None], x.shape) if train"),
           ("xp.arange(H * W)[None, :, None] == winners[:, None]", "winners.reshape(N, H * W, C)")),
          of("test_layers.py", "global_max_pool")),
    Fault("dy is shared among the rows alone", "globalavgpool2d", f"{LAYERS}/global_avg_pool2d.py",
          (("type(H * W)", "type(H)"),),
          contract("GlobalAvgPool2d")),
    Fault("pixels come channel by channel", "flatten", f"{LAYERS}/flatten.py",
          (("x.reshape(x.shape[0], -1)", "x.swapaxes(1, -1).reshape(x.shape[0], -1)"),),
          contract("Flatten")),
    Fault("a large negative number overflows", "sigmoid", f"{LAYERS}/sigmoid.py",
          (("xp.exp(-xp.abs(x))", "xp.exp(x)"),
           ("xp.exp(xp.minimum(x, 0)) / (1 + small)", "small / (1 + small)")),
          of("test_numerics.py", "saturated and Sigmoid")),
    Fault("the scale is alpha, not alpha/size", "localresponsenorm", f"{LAYERS}/local_response_norm.py",
          (("self.alpha / self.size if self.average else self.alpha", "self.alpha"),),
          oracle("LocalResponseNorm")),
    Fault("the second gradient replaces the first", "accumulate", "minidl/layer.py",
          (("self.grad += gradient", "self.grad = gradient"),),
          of("test_layers.py", "accumulate")),
    Fault("a shared parameter is found twice", "shared", "minidl/layer.py",
          (("setdefault(id(value), (path, value))", "setdefault(hash(path), (path, value))"),),
          of("test_layers.py", "shared")),
    Fault("two places draw the same mask", "twoplaces", COMBINE,
          (("key=key.at(name) if key else None", "key=key"),),
          of("test_layers.py", "two_places")),
    Fault("no layer gets an input gradient if the first need not", "sequential", COMBINE,
          (("input_gradient or not is_first", "input_gradient"),),
          contract("Sequential")),
    Fault("the total is written into the first branch's output", "sum", COMBINE,
          (("total = arrays[0] + arrays[1]", "total = arrays[0]\n    total += arrays[1]"),),
          of("test_layers.py", "sum_adds")),
    Fault("the third branch is left out", "sum", COMBINE,
          (("arrays[2:]", "arrays[3:]"),),
          of("test_layers.py", "sum_adds")),
    Fault("smoothing spreads over the other classes only", "smoothing", f"{OPS}/softmax_cross_entropy.py",
          (("counts * (label_smoothing / len(weight))", "counts * (label_smoothing / (len(weight) - 1))"),),
          of("test_losses.py", "by_hand")),
    Fault("the mean counts ignored labels", "ignored", LOSSES,
          (("weight[flat] * (flat >= 0)", "weight[flat]"),),
          of("test_losses.py", "by_hand")),
    Fault("the mean divides by the number of labels", "weights", LOSSES,
          (("(weight[flat] * (flat >= 0))", "(flat >= 0).astype(weight.dtype)"),),
          of("test_losses.py", "by_hand")),
    Fault("the derivative of a square without its 2", "meansquarederror", LOSSES,
          (("asarray(2 * share * scale,", "asarray(share * scale,"),),
          contract("MeanSquaredError")),
]

REST_FAULTS = [
    Fault("a resumed optimiser has forgotten its velocity", "resumedoptimizer", OPTIM,
          (("astype(value.dtype, copy=True)", "astype(value.dtype, copy=True) * 0"),),
          of("test_optim.py", "resumed")),
    Fault("the number of steps is counted over all parameters", "adamw", OPTIM,
          (("self.updates.get(name, 0) + 1", "max(self.updates.values(), default=0) + 1"),),
          of("test_optim.py", "adamw")),
    Fault("biases decay too", "decaymultiplier", OPTIM,
          (("self.weight_decay * self.decay_multipliers[name]", "self.weight_decay"),),
          of("test_optim.py", "multiplier")),
    Fault("Step falls a step early", "step", "minidl/schedules.py",
          (("(step // self.step_size)", "((step + 1) // self.step_size)"),),
          of("test_schedules.py", "step")),
    Fault("Cosine runs a step ahead", "cosine", "minidl/schedules.py",
          (("min(step / self.steps, 1.0)", "min((step + 1) / self.steps, 1.0)"),),
          of("test_schedules.py", "cosine")),
    Fault("the warm-up begins at 0", "warmup", "minidl/schedules.py",
          (("(step + 1) / self.steps", "step / self.steps"),),
          of("test_schedules.py", "warm_up")),
    Fault("Plateau waits one validation more", "plateau", "minidl/schedules.py",
          (("waited == self.patience", "waited > self.patience"),),
          of("test_schedules.py", "plateau")),
    Fault("he takes the fan out", "hekeeps", "minidl/initializers.py",
          (("2 / fans(shape)[0]", "2 / fans(shape)[1]"),),
          of("test_initializers.py", "he_keeps")),
    Fault("glorot forgets that the variance of a uniform is a third", "glorot", "minidl/initializers.py",
          (("math.sqrt(6 / sum", "math.sqrt(2 / sum"),),
          of("test_initializers.py", "glorot")),
    Fault("a digit of the golden ratio is wrong", "philox", "minidl/random.py",
          (("0x9E3779B9", "0x9E3779B8"),),
          of("test_random.py", "philox")),
    Fault("a key forgets the batch's first sample", "key", "minidl/random.py",
          (("replace(self, seed=low | high << 32)", "Key(low | high << 32)"),),
          of("test_random.py", "key")),
    Fault("the loss of an epoch is averaged over batches", "loss", "minidl/training/metrics.py",
          (("self.loss_sum += mean_loss * count",
            "self.batches = getattr(self, 'batches', 0) + 1\n        self.loss_sum += mean_loss"),
           ("return self.loss_sum / self.count if", "return self.loss_sum / self.batches if")),
          of("training/test_training_by_hand.py", "mean_over_images")),
    Fault("of equal scores the label counts as best", "metrics", "minidl/training/metrics.py",
          (("~(logits <= own) | ((logits == own) & before)", "~(logits <= own)"),),
          ("minidl/training/metrics.py",)),
    Fault("every epoch has the order of the first", "loader", "minidl/data/loader.py",
          (('self.key.at("order").at(epoch)', 'self.key.at("order")'),),
          of("data/test_loader.py", "epoch_follows")),
    Fault("labels stay in the order of the split", "loader", "minidl/data/loader.py",
          (("source.labels[positions]", "source.labels[np.sort(positions)]"),),
          of("data/test_loader.py", "training_shows")),
    Fault("the rate is that of the next step", "rate", "minidl/training/trainer.py",
          (("self.config.device, self.schedule.lr(step)", "self.config.device, self.schedule.lr(step + 1)"),),
          of("training/test_training_by_hand.py", "rate")),
    Fault("a checkpoint leaves the optimiser's velocity out", "resumed", "minidl/training/trainer.py",
          (("self.optimizer.state_dict().items()", "self.optimizer.state_dict().items() if 'velocity' not in name"),),
          of("training/test_run.py", "resumed and 1-options0")),
    Fault("gradients pile up from step to step", "step", "minidl/training/step.py",
          (("    optimizer.zero_grad()\n", ""),),
          of("training/test_training_by_hand.py", "step")),
]

KERNEL_FAULTS = [
    Fault("the last rows of a chunk are left out", "conv2d", "kernels/im2col.py",
          (("y = np.empty(problem.y_shape", "y = np.zeros(problem.y_shape"),
           ("parts[start:stop]", "parts[start : stop - (stop == len(parts) > 1)]")),
          of("kernels/test_conv2d_kernel.py", "convolution")),
    Fault("col2im assigns instead of adding", "im2col", "kernels/im2col.py",
          (("target[np.uintp(at + k)] += source", "target[np.uintp(at + k)] = source"),),
          of("kernels/test_conv2d_kernel.py", "im2col")),
    Fault("filters slide with stride 1 in the weight gradient", "conv2d", "kernels/im2col.py",
          (("geometry(window), 0, len(cols))\n                dfilters",
            "geometry(Window(window.kernel, padding=window.padding)), 0, len(cols))\n                dfilters"),),
          contract("Conv2d", "cpu")),
    Fault("a thread's share of the weight gradient is left out", "conv2d", "kernels/im2col.py",
          (("sums[1:]", "sums[2:]"),),
          of("kernels/test_conv2d_kernel.py", "convolution")),
    Fault("a NaN loses", "maxpool2d", "kernels/max_pool2d.py",
          (("(not seen[c] <= best[c]) & (best[c] == best[c])", "seen[c] > best[c]"),),
          of("kernels/test_pool2d_kernels.py", "max_pool2d")),
    Fault("the last of equals wins", "maxpool2d", "kernels/max_pool2d.py",
          (("not seen[c] <= best[c]", "not seen[c] < best[c]"),),
          of("kernels/test_pool2d_kernels.py", "max_pool2d")),
    Fault("rows of dx keep what was there before", "avgpool2d", "kernels/avg_pool2d.py",
          (("total[c] = 0\n        for i", "total[c] = 1\n        for i"),),
          contract("AvgPool2d", "cpu")),
    Fault("the window of the gradient is not turned around", "localresponsenorm", "kernels/local_response_norm.py",
          (("after, one = (size - 1) // 2, size // 2,", "after, one = (size - 1) // 2, (size - 1) // 2,"),),
          contract("LocalResponseNorm", "cpu")),
    Fault("the edge of a group sees the group before", "localresponsenorm", "kernels/local_response_norm.py",
          (("squares = np.zeros(C + size - 1, x.dtype)\n", "squares = np.ones(C + size - 1, x.dtype)\n"),),
          contract("LocalResponseNorm", "cpu")),
    Fault("the slope at 0 is 1", "relu", "kernels/relu.py",
          (("> zero", ">= zero"),),
          of("kernels/test_channel_kernels.py", "relu")),
    Fault("the sum is in float32", "channelsum", "kernels/channel_sum.py",
          (("BLOCK), C))\n    split(len(totals), _sum", "BLOCK), C), x.dtype)\n    split(len(totals), _sum"),),
          of("test_ops.py", "channel_sums")),
    Fault("each thread counts its samples from 0", "dropout", "kernels/dropout.py",
          (("key[2] + np.uint64(n)", "key[2] + np.uint64(n - start)"),),
          of("kernels/test_kernel_threads.py", "dropout")),
    Fault("a word below the bound is kept", "dropout", "kernels/dropout.py",
          (("words[j] >= drop", "words[j] > drop"),),
          of("kernels/test_channel_kernels.py", "dropout")),
    Fault("the last column of a product is left out", "linear", "kernels/linear.py",
          (("np.matmul(a, b[:, start:stop], out=out[:, start:stop])",
            "np.matmul(a, b[:, start : stop - 1], out=out[:, start : stop - 1])"),),
          of("kernels/test_linear_kernel.py", "products")),
    Fault("Nesterov looks ahead without the descent", "sgd", "kernels/sgd.py",
          (("momentum * v - lr * descent", "momentum * v"),),
          of("kernels/test_sgd_kernel.py", "bits")),
    Fault("the last row belongs to no thread", "threads", "kernels/threads.py",
          (("n * (i + 1) // parts) for", "(n - 1) * (i + 1) // parts) for"),),
          of("kernels/test_kernel_threads.py", "every_index")),
]
# fmt: on

FAULTS = [*TAUGHT, *OPS_FAULTS, *LAYER_FAULTS, *REST_FAULTS, *KERNEL_FAULTS]
