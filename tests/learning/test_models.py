import subprocess
import sys

import pytest
import torch

from fedbench.learning import models


def test_mobilenet_v2_maps_small_images_to_ten_logits() -> None:
    model = models.build("mobilenet_v2").eval()

    assert model(torch.zeros(3, 3, 32, 32)).shape == (3, 10)
    # Sandler et al. 2018: 3,504,872 with 1,000 classes; the classifier has 1,280 + 1 a class.
    assert sum(p.numel() for p in model.parameters()) == 3_504_872 - 990 * 1_281 == 2_236_682


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
    with pytest.raises(ValueError, match="unknown model 'resnet', expected one of mobilenet_v2"):
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
