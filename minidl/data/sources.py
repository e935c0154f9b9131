"""From the words a user types, such as `folder:photos`, to a data set."""

from __future__ import annotations

from pathlib import Path

from minidl.data.cifar10 import load_cifar10
from minidl.data.dataset import Dataset
from minidl.data.digits import load_digits
from minidl.data.folder import load_folder
from minidl.data.mnist import load_mnist
from minidl.data.synthetic import load_synthetic
from minidl.errors import ArgumentError, DataError, UnknownNameError, told

_IN_A_FOLDER = {"mnist": load_mnist, "cifar10": load_cifar10, "folder": load_folder}


def load(spec: str) -> Dataset:
    """The data set that a spec names.

        digits             1,797 handwritten digits of 8×8, part of minidl
        mnist:DIR          the four idx files of MNIST (or of Fashion-MNIST, …), plain or gzipped
        cifar10:DIR        the binary version of CIFAR-10
        folder:DIR         DIR/class/*.jpg|jpeg|png, or DIR/train/class/… and DIR/val/class/…
        synthetic          random noise, for measuring speed; synthetic:HxWxC:classes:count sets its sizes

    >>> dataset = load("digits")
    >>> len(dataset.train) + len(dataset.test), dataset.image_size
    (1797, (8, 8))

    Raises: UnknownNameError, ArgumentError for a malformed spec; DataError, FormatError where the files are not
    what they should be.
    """
    if not isinstance(spec, str) or "\0" in spec:
        raise ArgumentError(f"data: expected words such as 'digits' or 'folder:DIR', got {told(spec)}")
    name, _, rest = spec.partition(":")
    if name in _IN_A_FOLDER:
        if not rest:
            raise ArgumentError(f"data {spec!r}: which folder? Write '{name}:DIR'")
        try:
            return _IN_A_FOLDER[name](Path(rest).expanduser())
        except RuntimeError as error:  # "~somebody" without such a user
            raise DataError(f"data {spec!r}: {error}") from error
        except OSError as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{error.filename or rest}: cannot be read ({error.strerror})") from error
    if name == "synthetic":
        return load_synthetic(rest)
    if name == "digits":
        if rest:
            raise ArgumentError(f"data {spec!r}: digits is part of minidl and takes nothing; write 'digits'")
        return load_digits()
    if spec and not spec.startswith("~") and Path(spec).is_dir():
        raise ArgumentError(f"data {spec!r}: for images in a folder, write 'folder:{spec}'")
    raise UnknownNameError("data", spec, ["digits", "mnist:DIR", "cifar10:DIR", "folder:DIR", "synthetic"])
