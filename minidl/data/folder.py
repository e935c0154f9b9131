"""Photographs in folders, one folder for each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minidl.data.dataset import Dataset, FileSplit, existing_folder, stratified_split
from minidl.errors import DataError
from minidl.random import Key

SUFFIXES = (".jpg", ".jpeg", ".png")
ONE_IN = 5


def load_folder(folder: Path) -> Dataset:
    """Images in `folder/class/*.jpg|jpeg|png`, or in `folder/train/class/…` and `folder/val/class/…` (or `test/`).

    Classes are numbered by name; other files and hidden ones are passed over. Without a `val` or `test` folder one
    image in five of each class is held out to test on, always the same ones. Images are decoded when asked for.

    Raises: DataError for a missing or empty folder, a class without images, and train and val folders that hold
    different classes.
    """
    existing_folder(folder)
    train_folder = folder / "train"
    if not (train_folder.is_dir() and _class_names(train_folder)):
        return _held_out(folder, folder)
    for name in ("val", "test"):
        if (folder / name).is_dir():
            return _given(folder, train_folder, folder / name)
    return _held_out(folder, train_folder)


def _given(folder: Path, train_folder: Path, test_folder: Path) -> Dataset:
    names, test_names = _class_names(train_folder), _class_names(test_folder)
    for name in sorted(set(names) ^ set(test_names)):
        here, there = (train_folder, test_folder) if name in names else (test_folder, train_folder)
        raise DataError(f"{there}: expected the classes of {here}, but there is no folder {name!r}")
    return _dataset(folder, names, _files(train_folder, names), _files(test_folder, names))


def _held_out(folder: Path, classes_folder: Path) -> Dataset:
    names = _class_names(classes_folder)
    files = _files(classes_folder, names)
    train, test = stratified_split(files.labels, one_in=ONE_IN, key=Key(0).at("folder"))
    if not len(test):
        note = f"{folder}: every class has a single image, so the images to train on are also those to test on"
        return _dataset(folder, names, files, files, note)
    note = f"{folder}: no folder val or test, so {len(test)} of {len(files)} images are held out to test on"
    return _dataset(folder, names, _part(files, train), _part(files, test), note)


def _dataset(folder: Path, names: list[str], train: FileSplit, test: FileSplit, *notes: str) -> Dataset:
    return Dataset(
        spec=f"folder:{folder}",
        class_names=tuple(names),
        train=train,
        test=test,
        channels=3,
        image_size=None,
        mirror=True,
        notes=notes,
    )


def _class_names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")


def _files(folder: Path, names: list[str]) -> FileSplit:
    if not names:
        raise DataError(f"{folder}: expected a folder for each class, found none")
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        found = [p for p in (folder / name).iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != "."]
        if not found:
            raise DataError(f"{folder / name}: expected images ({', '.join(SUFFIXES)}), found none")
        paths += sorted(found)
        labels += [label] * len(found)
    return FileSplit(paths, np.array(labels))


def _part(files: FileSplit, positions: np.ndarray[tuple[int], np.dtype[np.int64]]) -> FileSplit:
    return FileSplit([files.paths[i] for i in positions], files.labels[positions], files.channels)
