"""VGG.

Source: Simonyan and Zisserman 2014, arXiv 1409.1556, Table 1.
"""

from __future__ import annotations

from minidl.combine import Sequential
from minidl.layers import Conv2d, Dropout, Flatten, Linear, MaxPool2d, ReLU
from minidl.models.registry import model

# §3.1, but for the batch of 256, which would need some 30 GB. The rate is lower in proportion, and starts gently.
RECIPE = {
    "epochs": 74, "batch": 32, "lr": 0.00125, "schedule": "plateau", "warmup": 1.0, "momentum": 0.9,
    "weight_decay": 5e-4,
}  # fmt: skip


@model(input_size=224, recipe=RECIPE)
def vgg16(num_classes: int = 1000, in_channels: int = 3) -> Sequential:
    """Configuration D: thirteen 3×3 convolutions in five blocks, and three linear layers.

    >>> sum(parameter.size for parameter in vgg16().parameters().values())
    138357544
    """
    # fmt: off
    return Sequential(
        conv1_1=_conv3x3(in_channels, 64), relu1_1=ReLU(),     # 224×224×64
        conv1_2=_conv3x3(64, 64),   relu1_2=ReLU(),
        pool1=MaxPool2d(2),                                    # 112×112×64
        conv2_1=_conv3x3(64, 128),  relu2_1=ReLU(),
        conv2_2=_conv3x3(128, 128), relu2_2=ReLU(),
        pool2=MaxPool2d(2),                                    # 56×56×128
        conv3_1=_conv3x3(128, 256), relu3_1=ReLU(),
        conv3_2=_conv3x3(256, 256), relu3_2=ReLU(),
        conv3_3=_conv3x3(256, 256), relu3_3=ReLU(),
        pool3=MaxPool2d(2),                                    # 28×28×256
        conv4_1=_conv3x3(256, 512), relu4_1=ReLU(),
        conv4_2=_conv3x3(512, 512), relu4_2=ReLU(),
        conv4_3=_conv3x3(512, 512), relu4_3=ReLU(),
        pool4=MaxPool2d(2),                                    # 14×14×512
        conv5_1=_conv3x3(512, 512), relu5_1=ReLU(),
        conv5_2=_conv3x3(512, 512), relu5_2=ReLU(),
        conv5_3=_conv3x3(512, 512), relu5_3=ReLU(),
        pool5=MaxPool2d(2), flatten=Flatten(),                 # 7×7×512 = 25088
        fc6=Linear(25088, 4096), relu6=ReLU(), drop6=Dropout(0.5),
        fc7=Linear(4096, 4096),  relu7=ReLU(), drop7=Dropout(0.5),
        fc8=Linear(4096, num_classes),
    )
    # fmt: on


def _conv3x3(in_channels: int, out_channels: int) -> Conv2d:
    return Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
