import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

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
