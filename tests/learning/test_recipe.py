from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedbench.config import Experiment
from fedbench.learning.augment import flip_crop
from fedbench.learning.optimizers import SGD, Adam
from fedbench.learning.recipe import Recipe


def test_a_constant_rate_is_constant() -> None:
    assert {Recipe(run=(0.2, 0.4)).factor(done) for done in (0.0, 0.3, 1.0)} == {1.0}


@given(rounds=st.integers(1, 30), steps=st.integers(1, 20))
def test_rounds_follow_one_cosine_without_a_seam(rounds: int, steps: int) -> None:
    factors = [
        Recipe(schedule="cosine", run=(number / rounds, (number + 1) / rounds)).factor(step / steps)
        for number in range(rounds)
        for step in range(steps)
    ]

    total = rounds * steps
    whole = [(1 + np.cos(np.pi * step / total)) / 2 for step in range(total)]
    np.testing.assert_allclose(factors, whole, atol=1e-12)


def test_the_last_round_ends_at_zero_and_epochs_beyond_it_stay_there() -> None:
    last = Recipe(schedule="cosine", run=(0.95, 1.0))

    assert last.factor(1.0) == last.factor(1.5) == pytest.approx(0.0, abs=1e-15)
    assert Recipe(schedule="cosine", run=(0.0, 0.05)).factor(0.0) == 1.0


def test_its_words_name_what_they_say() -> None:
    model = nn.Linear(2, 2)

    assert isinstance(Recipe().optimize(model, 0.1), Adam)
    assert isinstance(Recipe(optimizer="sgd").optimize(model, torch.tensor(0.1)), SGD)
    assert Recipe().augment() is None
    assert Recipe(augmentation="flip-crop").augment() is flip_crop


def test_a_recipe_is_made_of_the_options_that_have_its_names() -> None:
    options = {"optimizer": "sgd", "gradient_clipping": 0.5, "rounds": 20, "name": "other"}

    recipe = Recipe.of(options, 3, 20)

    assert recipe == Recipe(optimizer="sgd", gradient_clipping=0.5, run=(0.1, 0.15))


def test_every_option_of_a_recipe_is_one_of_an_experiment() -> None:
    """So a new one is declared in these two, and nowhere between them."""
    options = {field.name for field in fields(Recipe)} - {"run"}

    assert options <= Experiment.model_fields.keys()
    defaults = Experiment(name="test").model_dump()
    assert Recipe.of(defaults, 1, 1) == Recipe()


def stepped(clipping: float, *, gradient: float = 2.0) -> list[float]:
    """Two weights after a step of SGD at a rate of 1, from zero, with the same gradient of both."""
    model = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = Recipe(optimizer="sgd", gradient_clipping=clipping).optimize(model, 1.0)
    optimizer.zero_grad()
    model(torch.full((1, 2), gradient)).sum().backward()
    optimizer.step()
    weights: list[float] = model.weight.flatten().tolist()
    return weights


def test_a_long_gradient_is_cut_to_its_norm_and_a_short_one_is_left() -> None:
    whole = stepped(0.0)
    unit = 0.5**0.5  # of the norm 1, in two equal parts

    assert stepped(100.0) == whole
    assert stepped(1.0) == pytest.approx([weight * unit / 2.0 for weight in whole], rel=1e-5)
    assert stepped(1.0, gradient=0.1) == stepped(0.0, gradient=0.1)
