from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minidl.data import cifar10, load
from minidl.errors import DataError, FormatError

FILES = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]


@pytest.fixture(autouse=True)
def _short_files(monkeypatch):
    monkeypatch.setattr(cifar10, "RECORDS", 3)


def write(folder: Path) -> dict[str, np.ndarray]:
    folder.mkdir(exist_ok=True)
    files = {}
    for seed, name in enumerate(FILES):
        files[name] = np.random.default_rng(seed).integers(256, size=(3, 3073), dtype=np.uint8)
        files[name][:, 0] %= 10
        files[name].tofile(folder / name)
    return files


@pytest.mark.parametrize("inner", ["", "cifar-10-batches-bin"])
def test_planes_become_channels(tmp_path, inner):
    files = write(tmp_path / inner)
    dataset = load(f"cifar10:{tmp_path}")
    assert (len(dataset.train), len(dataset.test)) == (15, 3)
    record = files["data_batch_2.bin"][1]
    image, row, column = dataset.train.image(4), 7, 30
    assert dataset.train.labels[4] == record[0]
    assert image.shape == (32, 32, 3)
    assert list(image[row, column]) == [record[1 + plane * 1024 + row * 32 + column] for plane in range(3)]
    np.testing.assert_array_equal(dataset.test.labels, files["test_batch.bin"][:, 0])
    assert dataset.class_names[9] == "truck"
    assert (dataset.channels, dataset.image_size, dataset.mirror) == (3, (32, 32), True)


def test_a_real_file_has_ten_thousand_images(tmp_path, monkeypatch):
    monkeypatch.undo()
    write(tmp_path)
    with pytest.raises(FormatError, match=r"data_batch_1\.bin: expected 30730000 bytes .* got 9219"):
        load(f"cifar10:{tmp_path}")


def test_class_names_from_the_archive(tmp_path):
    write(tmp_path)
    (tmp_path / "batches.meta.txt").write_text("a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n")
    assert load(f"cifar10:{tmp_path}").class_names == tuple("abcdefghij")
    (tmp_path / "batches.meta.txt").write_text("a\nb\n")
    with pytest.raises(FormatError, match=r"batches\.meta\.txt: expected 10 class names, got 2"):
        load(f"cifar10:{tmp_path}")


def test_missing_files(tmp_path):
    write(tmp_path)
    (tmp_path / "data_batch_3.bin").unlink()
    (tmp_path / "test_batch.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_3\.bin, test_batch\.bin not found; unpack cifar-10-binary"):
        load(f"cifar10:{tmp_path}")


@pytest.mark.parametrize("path", ["data_batch_1", "cifar-10-batches-py/data_batch_1"])
def test_pickles_are_refused(tmp_path, path):
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).touch()
    with pytest.raises(FormatError, match=r"pickle runs whatever code it holds; unpack cifar-10-binary\.tar\.gz"):
        load(f"cifar10:{tmp_path}")


def test_truncated(tmp_path):
    write(tmp_path)
    path = tmp_path / "data_batch_5.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError, match=r"data_batch_5\.bin: expected 9219 bytes \(3 images of 3073\), got 9218"):
        load(f"cifar10:{tmp_path}")


def test_label_out_of_range(tmp_path):
    records = write(tmp_path)["test_batch.bin"]
    records[2, 0] = 10
    records.tofile(tmp_path / "test_batch.bin")
    with pytest.raises(FormatError, match=r"test_batch\.bin: expected labels from 0 to 9, got 10"):
        load(f"cifar10:{tmp_path}")
