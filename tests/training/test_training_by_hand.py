"""What a training counts and does, followed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from minidl import Key, data
from minidl.layers import Flatten, Linear, Sequential
from minidl.losses import MeanSquaredError, SoftmaxCrossEntropy
from minidl.optim import SGD
from minidl.training import Config
from minidl.training.metrics import Tally
from minidl.training.step import train_step
from minidl.training.trainer import Trainer


def test_the_loss_of_an_epoch_is_the_mean_over_images_of_uneven_batches():
    tally = Tally()
    assert np.isnan([tally.loss, tally.top1, tally.top5]).all()
    right, fifth, sixth = np.eye(6)[0], np.array([1, 2, 3, 4, 5, 0.0]), np.arange(6.0)
    tally.add(1.0, np.stack([right, fifth, sixth]), np.zeros(3, int))
    tally.add(5.0, right[None], np.zeros(1, int))
    assert (tally.count, tally.loss) == (4, (3 * 1.0 + 5.0) / 4)
    assert (tally.top1, tally.top5) == (2 / 4, 3 / 4)


def test_two_training_steps_by_hand(normal):
    net = Sequential(fc=Linear(3, 2)).to(dtype="float64")
    weight, bias = net["fc"].weight.value.copy(), net["fc"].bias.value.copy()
    optimizer = SGD(net.parameters(), momentum=0)
    for step, lr in enumerate([0.5, 0.1]):
        x, targets = normal(4, 3, seed=step), normal(4, 2, seed=step + 2)
        y = x @ weight + bias
        loss, outputs = train_step(net, MeanSquaredError(), optimizer, x, targets, lr, Key(0))
        assert loss == pytest.approx(((y - targets) ** 2).mean())
        np.testing.assert_allclose(outputs, y, rtol=1e-13)
        dy = 2 * (y - targets) / y.size
        weight, bias = weight - lr * x.T @ dy, bias - lr * dy.sum(axis=0)
        np.testing.assert_allclose(net["fc"].weight.value, weight, rtol=1e-12)
        np.testing.assert_allclose(net["fc"].bias.value, bias, rtol=1e-12)


def test_a_training_makes_every_step_at_its_own_rate():
    config = Config(data="synthetic:4x4x1:3:24", epochs=2, batch=5, lr=0.1, schedule="cosine", seed=3)
    dataset = data.load(config.data)
    how = data.Preprocessing.measured_on(dataset.train, height=4, width=4, channels=1)

    def make() -> Sequential:
        net = Sequential(flatten=Flatten(), fc=Linear(16, 3))
        net["fc"].weight.value = np.random.default_rng(0).standard_normal((16, 3)).astype(np.float32)
        return net

    trainer = Trainer(make(), dataset, how, config)
    trainer.run()

    net, key = make(), Key(config.seed)
    optimizer, schedule = config.make_optimizer(net.parameters()), config.make_schedule(trainer.steps_per_epoch)
    loader = data.Loader(dataset.train, how, config.batch, train=True, key=key.at("data"))
    loss = SoftmaxCrossEntropy(label_smoothing=config.label_smoothing)
    batches = [batch for epoch in range(config.epochs) for batch in loader.epoch(epoch)]
    assert len(batches) == trainer.step > 8
    for step, batch in enumerate(batches):
        train_step(net, loss, optimizer, batch.images, batch.labels, schedule.lr(step), key.at(step))
    for name, parameter in net.parameters().items():
        np.testing.assert_array_equal(trainer.net.parameters()[name].value, parameter.value, name)
