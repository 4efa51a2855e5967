import subprocess
import sys
from typing import get_args

import pytest
import torch

from fedbench.config import Experiment
from fedbench.learning import models

# Parameters with 1,000 classes and inputs of the last layer, as published: Howard et al. 2017
# (Keras' trainable count), Sandler et al. 2018, Howard et al. 2019 (torchvision's counts).
PUBLISHED = {
    "mobilenet_v1": (4_231_976, 1024),
    "mobilenet_v2": (3_504_872, 1280),
    "mobilenet_v3_small": (2_542_856, 1024),
    "mobilenet_v3_large": (5_483_032, 1280),
}


def test_all_models_are_published_ones() -> None:
    assert models.MODELS.keys() == PUBLISHED.keys()
    assert get_args(Experiment.model_fields["model"].annotation) == tuple(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_small_images_become_ten_logits(name: str) -> None:
    model = models.build(name).eval()
    parameters, last = PUBLISHED[name]

    assert model(torch.zeros(3, 3, 32, 32)).shape == (3, 10)
    assert sum(p.numel() for p in model.parameters()) == parameters - 990 * (last + 1)


def test_number_of_classes() -> None:
    assert models.build("mobilenet_v2", classes=4).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 4)


def test_weights_lie_in_channels_last() -> None:
    convolution = next(models.build("mobilenet_v2").parameters())

    assert convolution.shape == (32, 3, 3, 3)
    assert convolution.is_contiguous(memory_format=torch.channels_last)
    assert not convolution.is_contiguous()


def test_weights_follow_the_seed() -> None:
    first, again, other = (models.build("mobilenet_v2", seed=s).state_dict() for s in (1, 1, 2))

    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["classifier.1.weight"], other["classifier.1.weight"])


def test_global_random_state_is_untouched() -> None:
    before = torch.get_rng_state()

    models.build("mobilenet_v2", seed=3)

    assert torch.equal(torch.get_rng_state(), before)


def test_unknown_model_names_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match="unknown model 'resnet', expected one of mobilenet_v1, mobil"
    ):
        models.build("resnet")


def test_a_foreign_failure_of_torchvision_is_not_hidden() -> None:
    script = """
import sys, types
broken = types.ModuleType("torchvision")
broken.__getattr__ = lambda name: (_ for _ in ()).throw(RuntimeError("foreign"))
sys.modules["torchvision"] = broken
import fedbench.learning.vision
"""
    argv = [sys.executable, "-c", script]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)

    assert done.returncode == 1
    assert done.stderr.endswith("RuntimeError: foreign\n")
