"""The paper's net, at its full size, trains on a folder of JPEGs."""

import numpy as np

from minidl.training import Config, load_run, train


def make_photographs(folder, count, seed):
    """Discs of warm colours and stripes of cold ones, of many sizes and places, as JPEG."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    for name, palette in ("disc", (230, 140, 40)), ("stripes", (40, 120, 230)):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            H, W = rng.integers(230, 330, 2)
            rows, columns = np.mgrid[:H, :W]
            centre, radius = rng.uniform(0.3, 0.7, 2) * (H, W), rng.uniform(40, 100)
            disc = np.hypot(rows - centre[0], columns - centre[1]) < radius
            stripes = (rows * rng.uniform(-1, 1) + columns) // rng.integers(8, 20) % 2 == 0
            shape = (disc if name == "disc" else stripes)[..., None]
            image = np.where(shape, np.array(palette), 110) + rng.normal(0, 25, (H, W, 3))
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / name / f"{i}.jpg", quality=85)


def test_twenty_photographs_of_two_classes_are_fitted(tmp_path):
    make_photographs(tmp_path / "photos" / "train", count=10, seed=11)
    make_photographs(tmp_path / "photos" / "val", count=1, seed=12)
    config = Config(
        model="alexnet", data=f"folder:{tmp_path / 'photos'}", epochs=4, batch=7, lr=0.001, schedule="constant"
    )  # fmt: skip
    result = train(config, tmp_path / "run")
    assert result.finished
    run = load_run(tmp_path / "run")
    assert sum(parameter.size for parameter in run.net.parameters().values()) == 60_965_224 - 998 * 4097
    tally, _ = run.evaluate(split="train")
    assert tally.count == 20 and tally.top1 == 1.0
    assert run.predict(tmp_path / "photos" / "val" / "disc" / "0.jpg")[0][0] == "disc"
