"""AlexNet, as its paper prints it, and its relatives.

Source: Krizhevsky, Sutskever, Hinton 2012, "ImageNet classification with deep convolutional neural networks"; the
section numbers in the tables are the paper's.
"""

from __future__ import annotations

from minidl.combine import Sequential
from minidl.initializers import constant, normal
from minidl.layers import Conv2d, Dropout, Flatten, Linear, LocalResponseNorm, MaxPool2d, ReLU
from minidl.models.registry import model

# "paper" is §5 to the letter. At full size it can stall with the loss at ln(1000) = 6.9, as fc6 and fc7 start with
# outputs near their bias of 1 for every image. "caffe" is Caffe's cure: biases of 0.1, narrower weights in fc6, fc7.
SCHEMES = {
    "paper": {
        "*.weight": normal(0.01),
        "*.bias": constant(0),
        "conv[245].bias": constant(1),
        "fc[67].bias": constant(1),
    },
    "caffe": {
        "*.weight": normal(0.01),
        "fc[67].weight": normal(0.005),
        "*.bias": constant(0),
        "conv[245].bias": constant(0.1),
        "fc[67].bias": constant(0.1),
    },
}

# §5, but for the first epoch: He's initial weights want a gentle start, the paper's own may not start at all.
RECIPE = {
    "epochs": 90, "batch": 128, "lr": 0.01, "schedule": "plateau", "warmup": 1.0, "momentum": 0.9,
    "weight_decay": 5e-4,
}  # fmt: skip


@model(input_size=227, schemes=SCHEMES, recipe=RECIPE)
def alexnet(groups: int = 2, lrn: bool = True, num_classes: int = 1000, in_channels: int = 3) -> Sequential:
    """The paper's net on one device: two groups in conv2, conv4 and conv5, and LRN before the first two pools.

    The paper says 224×224 pixels; its arithmetic needs 227 without padding. `groups=1` gives the net of many lecture
    notes ("62 million parameters").

    >>> net = alexnet()
    >>> sum(parameter.size for parameter in net.parameters().values())
    60965224
    >>> sum(parameter.size for parameter in alexnet(groups=1).parameters().values())
    62378344
    """
    # fmt: off
    net = Sequential(
        conv1=Conv2d(in_channels, 96, kernel_size=11, stride=4), relu1=ReLU(),          # 55×55×96   §3.5, §3.1
        norm1=LocalResponseNorm(size=5, alpha=1e-4, beta=0.75, k=2),                    #            §3.3
        pool1=MaxPool2d(kernel_size=3, stride=2),                                       # 27×27×96   §3.4, overlapping
        conv2=Conv2d(96, 256, kernel_size=5, padding=2, groups=groups), relu2=ReLU(),   # 27×27×256  §3.2, two GPUs
        norm2=LocalResponseNorm(size=5, alpha=1e-4, beta=0.75, k=2),
        pool2=MaxPool2d(kernel_size=3, stride=2),                                       # 13×13×256
        conv3=Conv2d(256, 384, kernel_size=3, padding=1), relu3=ReLU(),                 # 13×13×384  sees both groups
        conv4=Conv2d(384, 384, kernel_size=3, padding=1, groups=groups), relu4=ReLU(),  # 13×13×384
        conv5=Conv2d(384, 256, kernel_size=3, padding=1, groups=groups), relu5=ReLU(),  # 13×13×256
        pool5=MaxPool2d(kernel_size=3, stride=2), flatten=Flatten(),                    # 6×6×256 = 9216
        fc6=Linear(9216, 4096), relu6=ReLU(), drop6=Dropout(0.5),                       # 4096       §4.2
        fc7=Linear(4096, 4096), relu7=ReLU(), drop7=Dropout(0.5),                       # 4096
        fc8=Linear(4096, num_classes),                                                  # logits; softmax is in the loss
    )
    # fmt: on
    return net if lrn else net.without("norm1", "norm2")


@model(input_size=227, schemes=SCHEMES, recipe=RECIPE)
def bvlc_alexnet(num_classes: int = 1000, in_channels: int = 3) -> Sequential:
    """Caffe's replication of the paper's net, layer by layer the bvlc_alexnet of ONNX's model zoo.

    It is `alexnet` with Caffe's normalisation, k = 1 and scale = alpha/size, and a padded pool5: nothing at 227
    pixels, but it makes 6×6 maps from the zoo's 224 as well.

    >>> bvlc_alexnet().output_shape((224, 224, 3))
    (1000,)
    >>> sum(parameter.size for parameter in bvlc_alexnet().parameters().values())
    60965224
    """
    changed = {
        "norm1": LocalResponseNorm(size=5, alpha=1e-4, beta=0.75, k=1, average=True),
        "norm2": LocalResponseNorm(size=5, alpha=1e-4, beta=0.75, k=1, average=True),
        "pool5": MaxPool2d(kernel_size=3, stride=2, padding=((0, 1), (0, 1))),
    }
    return Sequential(**alexnet(num_classes=num_classes, in_channels=in_channels).layers | changed)


@model(input_size=227, schemes=SCHEMES, recipe=RECIPE)
def alexnet_no_padding(num_classes: int = 1000, in_channels: int = 3) -> Sequential:
    """The AlexNet of PadhAI's lecture: no padding, no groups, no LRN; its maps shrink faster, to 2×2.

    >>> sum(parameter.size for parameter in alexnet_no_padding().parameters().values())
    28823912
    """
    # fmt: off
    return Sequential(
        conv1=Conv2d(in_channels, 96, kernel_size=11, stride=4), relu1=ReLU(),  # 55×55×96
        pool1=MaxPool2d(kernel_size=3, stride=2),                               # 27×27×96
        conv2=Conv2d(96, 256, kernel_size=5), relu2=ReLU(),                     # 23×23×256
        pool2=MaxPool2d(kernel_size=3, stride=2),                               # 11×11×256
        conv3=Conv2d(256, 384, kernel_size=3), relu3=ReLU(),                    # 9×9×384
        conv4=Conv2d(384, 384, kernel_size=3), relu4=ReLU(),                    # 7×7×384
        conv5=Conv2d(384, 256, kernel_size=3), relu5=ReLU(),                    # 5×5×256
        pool5=MaxPool2d(kernel_size=3, stride=2), flatten=Flatten(),            # 2×2×256 = 1024
        fc6=Linear(1024, 4096), relu6=ReLU(), drop6=Dropout(0.5),
        fc7=Linear(4096, 4096), relu7=ReLU(), drop7=Dropout(0.5),
        fc8=Linear(4096, num_classes),
    )
    # fmt: on


@model(input_size=32, schemes=SCHEMES, recipe={"weight_decay": 1e-3, "label_smoothing": 0.1})
def alexnet_mini(num_classes: int = 10, in_channels: int = 3) -> Sequential:
    """AlexNet for 32×32 images: the same eight weight layers with LRN, overlapping pools, groups and dropout.

    About 1/165 of the parameters and 1/50 of the arithmetic, so that a CPU trains it in seconds.

    >>> sum(parameter.size for parameter in alexnet_mini().parameters().values())
    368842
    """
    # fmt: off
    return Sequential(
        conv1=Conv2d(in_channels, 32, kernel_size=5, padding=2), relu1=ReLU(),   # 32×32×32
        norm1=LocalResponseNorm(size=5, alpha=1e-4, beta=0.75, k=2),
        pool1=MaxPool2d(kernel_size=3, stride=2),                                # 15×15×32
        conv2=Conv2d(32, 64, kernel_size=5, padding=2, groups=2), relu2=ReLU(),  # 15×15×64
        norm2=LocalResponseNorm(size=5, alpha=1e-4, beta=0.75, k=2),
        pool2=MaxPool2d(kernel_size=3, stride=2),                                # 7×7×64
        conv3=Conv2d(64, 96, kernel_size=3, padding=1), relu3=ReLU(),            # 7×7×96
        conv4=Conv2d(96, 96, kernel_size=3, padding=1, groups=2), relu4=ReLU(),  # 7×7×96
        conv5=Conv2d(96, 64, kernel_size=3, padding=1, groups=2), relu5=ReLU(),  # 7×7×64
        pool5=MaxPool2d(kernel_size=3, stride=2), flatten=Flatten(),             # 3×3×64 = 576
        fc6=Linear(576, 256), relu6=ReLU(), drop6=Dropout(0.5),
        fc7=Linear(256, 256), relu7=ReLU(), drop7=Dropout(0.5),
        fc8=Linear(256, num_classes),
    )
    # fmt: on
