"""Data: labelled images from files, prepared for a net, in batches.

dataset = load("folder:photos")                                   # which images there are
preprocessing = Preprocessing.measured_on(dataset.train, height=224, width=224)
loader = Loader(dataset.train, preprocessing, 128, train=True, key=Key(0))
for batch in loader.epoch(0):                                     # (N, 224, 224, 3) float32, (N,) int64
    ...
"""

from minidl.data.dataset import ArraySplit, Dataset, FileSplit, Split, stratified_split
from minidl.data.images import read_image
from minidl.data.loader import Batch, Loader
from minidl.data.preprocess import Preprocessing
from minidl.data.sources import load

__all__ = [
    "ArraySplit",
    "Batch",
    "Dataset",
    "FileSplit",
    "Loader",
    "Preprocessing",
    "Split",
    "load",
    "read_image",
    "stratified_split",
]
