"""A captured training is the eager one: same weights, same losses, same random numbers.

Rounding alone drives two trainings apart where a kernel sums in no fixed order, and Adam doubles
the distance with each step. So the distance between captured and eager is held against that between
two eager trainings: at most 3 times as far, plus 2 % of the way that the weights went.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import dropout
from trainings import captured, distance, eager, trained

from fedbench.learning.models import MODELS
from fedbench.learning.recipe import Recipe
from fedbench.learning.step import Work, capture

Record = Callable[[str, float], None]

RECIPES = {
    "flip-crop": Recipe(augmentation="flip-crop"),
    "cosine": Recipe(schedule="cosine", run=(0.25, 0.5)),
    "decay": Recipe(weight_decay=0.05),
    "clipping": Recipe(gradient_clipping=0.5),
    "sgd": Recipe(optimizer="sgd", schedule="cosine", weight_decay=0.0005),
    "all": Recipe(
        weight_decay=0.05,
        schedule="cosine",
        augmentation="flip-crop",
        label_smoothing=0.1,
        gradient_clipping=1.0,
    ),
}


def require_same(name: str, device: torch.device, record: Record, **settings: Any) -> None:
    first, again = (trained(eager, name, device, **settings) for _ in range(2))
    graph = trained(captured, name, device, **settings)
    noise, apart = distance(again, first), distance(graph, first)
    record("eager from eager", noise)
    record("captured from eager", apart)
    assert np.isfinite(graph.weights).all()
    assert apart <= 3 * noise + 0.02
    assert graph.losses == pytest.approx(first.losses, rel=0.01 + 3 * noise)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("name", MODELS)
def test_each_model(name: str, device: torch.device, record: Record) -> None:
    require_same(name, device, record)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_each_recipe(recipe: Recipe, device: torch.device, record: Record) -> None:
    rate = 0.01 if recipe.optimizer == "sgd" else 0.001
    settings = {"recipe": recipe, "learning_rate": rate}
    require_same("mobilenet_v3_small", device, record, **settings)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_each_precision(precision: str, device: torch.device, record: Record) -> None:
    require_same("mobilenet_v3_small", device, record, precision=precision)


@pytest.mark.usefixtures("deterministic")
def test_dropout_is_that_of_eager_steps(device: torch.device, record: Record) -> None:
    """A graph counts the random numbers that it drew on from the generator's place."""
    require_same("mobilenet_v2", device, record, dropout=True)


@pytest.mark.usefixtures("deterministic")
def test_same_seed_same_training(device: torch.device, record: Record) -> None:
    settings = {"dropout": True, "recipe": RECIPES["all"]}
    first, again, other = (
        trained(captured, "mobilenet_v3_small", device, seed=seed, **settings) for seed in (3, 3, 4)
    )

    record("same seed", distance(again, first))
    record("another seed", distance(other, first))
    assert distance(again, first) < 0.1
    assert again.losses == pytest.approx(first.losses, rel=0.01)
    assert distance(other, first) > max(0.2, 3 * distance(again, first))


def test_each_replay_drops_others(device: torch.device) -> None:
    ones, seen = torch.ones(100_000, device=device), torch.zeros(100_000, device=device)
    work = on(device, lambda: seen.copy_(dropout(ones, 0.3)))
    masks = []
    for _ in range(6):
        work()
        masks.append(seen == 0)

    # Five standard deviations of the share.
    assert all(mask.double().mean().item() == pytest.approx(0.3, abs=0.0073) for mask in masks)
    together = [(a & b).double().mean().item() for a, b in pairwise(masks)]
    assert together == pytest.approx([0.09] * 5, abs=0.005)


def on(device: torch.device, work: Callable[[], object]) -> Work:
    """The work from a graph, where there are graphs; they want one eager run before."""
    work()
    return capture(work) if device.type == "cuda" else work
