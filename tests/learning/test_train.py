import math
from collections.abc import Iterator
from time import perf_counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from fedbench.learning import models
from fedbench.learning.data import ImageSet
from fedbench.learning.flat import to_flat
from fedbench.learning.recipe import Recipe
from fedbench.learning.train import Epoch, Progress, evaluate, shuffled_batches, train

DEVICES = ["cpu", *(["cuda:0"] if torch.cuda.is_available() else [])]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def image_set(n: int, classes: int = 3, device: str = "cpu") -> ImageSet:
    """Noise over a brightness that gives the class away."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % classes
    noise = torch.randint(60, (n, 32, 32, 3), generator=generator)
    images = (noise + 60 * labels.reshape(-1, 1, 1, 1)).to(torch.uint8)
    names = tuple(map(str, range(classes)))
    return ImageSet(images.to(device), labels.to(device), names)


def tiny(device: str = "cpu") -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            # A bias before the normalisation has no gradient but rounding, which Adam blows up.
            nn.Conv2d(3, 8, 3, stride=4, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(8, 3),
        )
    return model.to(device, memory_format=torch.channels_last)


def fit(model: nn.Module, data: ImageSet, **changes: Any) -> list[Any]:
    settings = {"epochs": 1, "batch_size": 16, "learning_rate": 0.01, "seed": 0}
    return train(model, data, **(settings | changes))


@pytest.mark.parametrize("device", DEVICES)
def test_loss_falls_and_accuracy_rises(device: str) -> None:
    data, model = image_set(96, device=device), tiny(device)
    before = evaluate(model, data)

    epochs = fit(model, data, epochs=12, learning_rate=0.03)
    after = evaluate(model, data)

    assert len(epochs) == 12
    assert epochs[-1].loss < epochs[0].loss / 2
    assert epochs[-1].accuracy > epochs[0].accuracy
    assert after.loss < before.loss / 2
    assert after.accuracy > 0.95
    assert all(epoch.samples == 96 and epoch.seconds > 0 for epoch in epochs)


def test_mobilenet_v2_learns() -> None:
    data, model = image_set(64), models.build("mobilenet_v2", classes=3)

    epochs = fit(model, data, epochs=4, learning_rate=0.001)

    assert epochs[-1].loss < epochs[0].loss


def test_epoch_equals_plain_steps() -> None:
    """The loop against the textbook: NCHW floats, Adam without fusion, one step at a time."""
    data, model, ours = image_set(40), tiny(), tiny()
    model[5] = ours[5] = nn.Identity()  # in place of dropout
    model.to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=False, foreach=False)
    losses, correct = [], 0
    for index in torch.randperm(40, generator=torch.Generator().manual_seed(5)).split(16):
        images = (data.images[index].permute(0, 3, 1, 2).contiguous() / 255 - 0.5) / 0.5
        optimizer.zero_grad()
        logits = model(images)
        loss = cross_entropy(logits, data.labels[index])
        loss.backward()
        optimizer.step()
        losses.append(loss.item() * len(index))
        correct += int((logits.argmax(1) == data.labels[index]).sum())

    (epoch,) = fit(ours, data, seed=5)

    assert epoch.loss == pytest.approx(sum(losses) / 40, rel=1e-5)
    assert epoch.accuracy == correct / 40
    np.testing.assert_allclose(to_flat(ours), to_flat(model), rtol=1e-3, atol=1e-5)


def test_first_step_of_mobilenet_v2_equals_a_plain_one() -> None:
    """Convolutions in channels_last sum in another order: same loss and gradient but for that."""
    data = image_set(8)
    plain = models.build("mobilenet_v2", classes=3).to(memory_format=torch.contiguous_format)
    ours = models.build("mobilenet_v2", classes=3)
    losses = []
    for model, memory in ((plain, torch.contiguous_format), (ours, torch.channels_last)):
        images, labels = data.batch(slice(None))
        model.classifier[0].p = 0.0
        loss = cross_entropy(model(images.contiguous(memory_format=memory)), labels)
        loss.backward()
        losses.append(loss.item())
    gradients = [torch.cat([p.grad.reshape(-1) for p in m.parameters()]) for m in (plain, ours)]

    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    cosine = torch.nn.functional.cosine_similarity(*gradients, dim=0)
    assert cosine > 0.999

    trained = models.build("mobilenet_v2", classes=3)
    trained.classifier[0].p = 0.0
    (epoch,) = fit(trained, data, batch_size=8)
    assert epoch.loss == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_same_seed_same_weights(device: str) -> None:
    data = image_set(40, device=device)
    results = []
    for seed in (3, 3, 4):
        model = tiny(device)
        fit(model, data, epochs=2, seed=seed)
        results.append(to_flat(model))

    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


def test_each_epoch_has_another_order() -> None:
    orders: list[list[list[int]]] = []

    class Recorder(ImageSet):
        def batch(self, index: Tensor | slice, augment: Any = None) -> tuple[Tensor, Tensor]:
            assert isinstance(index, Tensor)
            orders.append(index.tolist())
            return super().batch(index, augment)

    data = image_set(32)
    fit(tiny(), Recorder(data.images, data.labels, data.classes), epochs=2)

    first, second = orders[0] + orders[1], orders[2] + orders[3]
    assert sorted(first) == sorted(second) == list(range(32))
    assert first != second


@pytest.mark.parametrize("device", DEVICES)
def test_global_state_is_as_before(device: str) -> None:
    model, data = tiny(device).eval(), image_set(20, device=device)
    threads = torch.get_num_threads()
    states = [torch.get_rng_state()]
    if device != "cpu":
        states.append(torch.cuda.get_rng_state(device))

    fit(model, data)
    evaluate(model, data)

    assert not model.training
    assert torch.equal(torch.get_rng_state(), states[0])
    if device != "cpu":
        assert torch.equal(torch.cuda.get_rng_state(device), states[1])
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()


def test_the_device_is_not_waited_for_within_an_epoch() -> None:
    """`.item()` and its like would stall a GPU after every batch."""

    class NoScalars(TorchDispatchMode):
        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            assert function is not torch.ops.aten._local_scalar_dense.default
            return function(*args, **(kwargs or {}))

    model, data = tiny(), image_set(40)
    with pytest.raises(AssertionError), NoScalars():
        torch.zeros(1).item()

    with NoScalars():
        fit(model, data, on_batch=lambda progress: None)
        evaluate(model, data)


def test_progress_after_every_batch() -> None:
    seen: list[Progress] = []

    epochs = fit(tiny(), image_set(40), epochs=2, on_batch=seen.append)

    assert [(p.epoch, p.epochs, p.batch, p.batches, p.samples) for p in seen] == [
        (epoch, 2, batch, 3, samples)
        for epoch in (1, 2)
        for batch, samples in ((1, 16), (2, 32), (3, 40))
    ]
    first, second = [p.seconds for p in seen[:3]], [p.seconds for p in seen[3:]]
    assert 0 < first[0] < first[1] < first[2] < epochs[0].seconds
    assert 0 < second[0] < second[1] < second[2] < epochs[1].seconds


@given(epochs=st.integers(1, 3), seconds=st.floats(0, 0.03))
@hypothesis_settings(max_examples=20, deadline=None)
def test_epochs_go_on_until_their_time_has_passed(epochs: int, seconds: float) -> None:
    seen: list[Progress] = []
    start = perf_counter()

    took = fit(tiny(), image_set(32), epochs=epochs, seconds=seconds, on_batch=seen.append)

    assert len(took) >= epochs
    assert perf_counter() - start >= seconds
    assert len(took) == epochs or sum(epoch.seconds for epoch in took[:-1]) < seconds
    assert [(p.epoch, p.epochs) for p in seen[::2]] == [
        (number, max(number, epochs)) for number in range(1, len(took) + 1)
    ]


def test_epochs_are_told_as_they_end() -> None:
    seen: list[Epoch | Progress] = []

    epochs = fit(tiny(), image_set(16), epochs=2, on_batch=seen.append, on_epoch=seen.append)

    assert [type(item) for item in seen] == [Progress, Epoch, Progress, Epoch]
    assert seen[1::2] == epochs


def test_on_batch_may_end_the_training() -> None:
    model, data, seen = tiny().eval(), image_set(64), []
    state = torch.get_rng_state()

    def stop(progress: Progress) -> None:
        seen.append(progress.batch)
        if progress.batch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, data, on_batch=stop)

    assert seen == [1, 2]
    assert not model.training
    assert torch.equal(torch.get_rng_state(), state)


def test_single_last_image_is_trained_on() -> None:
    seen: list[Progress] = []

    (epoch,) = fit(models.build("mobilenet_v2"), image_set(9), batch_size=4, on_batch=seen.append)

    assert epoch.samples == 9
    assert [progress.samples for progress in seen] == [4, 9]


@given(samples=st.integers(2, 300), batch_size=st.integers(2, 64), seed=st.integers(0, 2**32))
def test_batches_hold_every_sample_once(samples: int, batch_size: int, seed: int) -> None:
    batches = shuffled_batches(samples, batch_size, torch.Generator().manual_seed(seed))

    assert sorted(torch.cat(batches).tolist()) == list(range(samples))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert 2 <= len(batches[-1]) <= batch_size + 1


@pytest.mark.parametrize(("samples", "batch_size"), [(1, 16), (16, 1)])
def test_batches_of_one_are_refused(samples: int, batch_size: int) -> None:
    with pytest.raises(
        ValueError, match=f"found {samples} images and a batch size of {batch_size}"
    ):
        fit(tiny(), image_set(samples), batch_size=batch_size)


def test_the_loss_is_smoothed() -> None:
    data, model = image_set(16), tiny()
    model[5] = nn.Identity()  # in place of dropout
    images, labels = data.batch(slice(None))
    expected = cross_entropy(model(images), labels, label_smoothing=0.2).item()

    (epoch,) = fit(model, data, recipe=Recipe(label_smoothing=0.2))

    assert epoch.loss == pytest.approx(expected, rel=1e-5)


def test_the_images_are_augmented_for_training_only() -> None:
    """Of images that are one half black and one half white, a crop has another brightness."""
    images = torch.zeros(16, 32, 32, 3, dtype=torch.uint8)
    images[:, :16] = 255
    data = ImageSet(images, torch.zeros(16, dtype=torch.int64), ("a", "b", "c"))
    seen: list[list[float]] = []
    model = tiny()
    model[0].register_forward_pre_hook(
        lambda _module, inputs: seen.append(inputs[0].mean((1, 2, 3)).tolist())
    )

    fit(model, data, recipe=Recipe(augmentation="flip-crop"))
    evaluate(model, data)

    training, evaluation = seen
    assert len(set(training)) > 2
    assert evaluation == [0.0] * 16


def test_the_rate_of_each_step_follows_the_whole_run() -> None:
    """Two rounds of two epochs against plain steps; momentum is new in each, the cosine is not."""
    data, model, ours = image_set(40), tiny(), tiny()
    model[5] = ours[5] = nn.Identity()  # in place of dropout
    steps = 0
    for number in range(2):
        optimizer = torch.optim.SGD(model.parameters(), momentum=0.9, nesterov=True)
        order = torch.Generator().manual_seed(number)
        for index in [i for _ in range(2) for i in torch.randperm(40, generator=order).split(16)]:
            optimizer.param_groups[0]["lr"] = 0.05 * (1 + math.cos(math.pi * steps / 12)) / 2
            images, labels = data.batch(index)
            optimizer.zero_grad()
            cross_entropy(model(images), labels).backward()
            optimizer.step()
            steps += 1

        recipe = Recipe(optimizer="sgd", schedule="cosine", run=(number / 2, (number + 1) / 2))
        fit(ours, data, epochs=2, learning_rate=0.05, seed=number, recipe=recipe)

    assert steps == 12
    np.testing.assert_allclose(to_flat(ours), to_flat(model), rtol=1e-4, atol=1e-6)


def test_evaluate_equals_plain_evaluation() -> None:
    model, data = tiny(), image_set(50)
    fit(model, data)
    weights = to_flat(model)
    model.eval()
    with torch.no_grad():
        logits = model((data.images.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5)
    model.train()

    result = evaluate(model, data, batch_size=16)

    assert result.loss == pytest.approx(cross_entropy(logits, data.labels).item(), rel=1e-5)
    assert result.accuracy == (logits.argmax(1) == data.labels).double().mean().item()
    assert result.samples == 50
    pairs = list(zip(data.labels.tolist(), logits.argmax(1).tolist(), strict=True))
    assert result.confusion == [[pairs.count((a, p)) for p in range(3)] for a in range(3)]
    assert result.seconds > 0
    assert model.training
    np.testing.assert_array_equal(to_flat(model), weights)
