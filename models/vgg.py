"""VGG: 3×3 convolutions, more and more of them.

Source: Simonyan and Zisserman 2014, arXiv 1409.1556, Table 1.
"""

from __future__ import annotations

from minidl.combine import Sequential
from minidl.layers import Conv2d, Dropout, Flatten, Layer, Linear, MaxPool2d, ReLU
from minidl.models.registry import model

# Five blocks, each ended by a pool that halves the map: 224, 112, 56, 28 and 14 pixels, and 7 after the last.
CHANNELS = 64, 128, 256, 512, 512
CONVOLUTIONS = {
    "A": (1, 1, 2, 2, 2),
    "B": (2, 2, 2, 2, 2),
    "D": (2, 2, 3, 3, 3),
    "E": (2, 2, 4, 4, 4),
}

# §3.1, but for the batch of 256, which would need some 30 GB. The rate is lower in proportion, and starts gently.
RECIPE = {
    "epochs": 74, "batch": 32, "lr": 0.00125, "schedule": "plateau", "warmup": 1.0, "momentum": 0.9,
    "weight_decay": 5e-4,
}  # fmt: skip


@model(input_size=224, recipe=RECIPE)
def vgg11(num_classes: int = 1000, in_channels: int = 3) -> Sequential:
    """Configuration A: eight convolutions in five blocks, and three linear layers.

    >>> sum(parameter.size for parameter in vgg11().parameters().values())
    132863336
    """
    return _vgg("A", num_classes, in_channels)


@model(input_size=224, recipe=RECIPE)
def vgg13(num_classes: int = 1000, in_channels: int = 3) -> Sequential:
    """Configuration B: ten convolutions.

    >>> sum(parameter.size for parameter in vgg13().parameters().values())
    133047848
    """
    return _vgg("B", num_classes, in_channels)


@model(input_size=224, recipe=RECIPE)
def vgg16(num_classes: int = 1000, in_channels: int = 3) -> Sequential:
    """Configuration D: thirteen convolutions.

    >>> sum(parameter.size for parameter in vgg16().parameters().values())
    138357544
    """
    return _vgg("D", num_classes, in_channels)


@model(input_size=224, recipe=RECIPE)
def vgg19(num_classes: int = 1000, in_channels: int = 3) -> Sequential:
    """Configuration E: sixteen convolutions.

    >>> sum(parameter.size for parameter in vgg19().parameters().values())
    143667240
    """
    return _vgg("E", num_classes, in_channels)


def _vgg(configuration: str, num_classes: int, in_channels: int) -> Sequential:
    blocks: dict[str, Layer] = {}
    inputs = in_channels
    for block, (outputs, count) in enumerate(zip(CHANNELS, CONVOLUTIONS[configuration], strict=True), start=1):
        for i in range(1, count + 1):
            blocks[f"conv{block}_{i}"] = Conv2d(inputs, outputs, kernel_size=3, padding=1)
            blocks[f"relu{block}_{i}"] = ReLU()
            inputs = outputs
        blocks[f"pool{block}"] = MaxPool2d(2)
    # fmt: off
    return Sequential(
        **blocks, flatten=Flatten(),  # 7×7×512 = 25088
        fc6=Linear(25088, 4096), relu6=ReLU(), drop6=Dropout(0.5),
        fc7=Linear(4096, 4096), relu7=ReLU(), drop7=Dropout(0.5),
        fc8=Linear(4096, num_classes),
    )
    # fmt: on
