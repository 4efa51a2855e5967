import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fedbench.client.workload import random_images
from fedbench.config import model_names
from fedbench.learning import flat, models, torchvision_models
from fedbench.learning.data import ImageSet
from fedbench.learning.models import set_stem_stride
from fedbench.learning.train import evaluate, train
from fedbench.learning.user_models import ModelError

# Parameters with 1,000 classes, inputs of the last layer and channels that are normalised, as
# published: Howard et al. 2017 (Keras' trainable count), Sandler et al. 2018, Howard et al. 2019
# (torchvision's counts).
PUBLISHED = {
    "mobilenet_v1": (4_231_976, 1024, 10_944),
    "mobilenet_v2": (3_504_872, 1280, 17_056),
    "mobilenet_v3_small": (2_542_856, 1024, 6_056),
    "mobilenet_v3_large": (5_483_032, 1280, 12_200),
}
# What travels with 10 classes, in MB of 10^6 bytes: parameters and running statistics as float32.
MEGABYTES = {
    "mobilenet_v1": 12.96,
    "mobilenet_v2": 9.08,
    "mobilenet_v3_small": 6.16,
    "mobilenet_v3_large": 16.96,
}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def data(samples: int = 8) -> ImageSet:
    return random_images(samples)


def test_the_study_is_of_published_models() -> None:
    assert tuple(models.MODELS) == model_names.MODELS == tuple(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("classes", [10, 4, 100, 1000])
def test_small_images_become_logits_of_any_number_of_classes(name: str, classes: int) -> None:
    model = models.build(name, classes).eval()
    whole, last, _ = PUBLISHED[name]

    assert model(torch.zeros(3, 3, 32, 32)).shape == (3, classes)
    assert parameters(model) == whole - (1000 - classes) * (last + 1)


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_travels_is_as_large_as_published(name: str) -> None:
    weights = flat.to_flat(models.build(name))
    whole, last, normalised = PUBLISHED[name]

    assert weights.size == whole - 990 * (last + 1) + 2 * normalised
    assert weights.nbytes / 1e6 == pytest.approx(MEGABYTES[name], abs=0.005)


def test_weights_lie_in_channels_last() -> None:
    convolution = next(models.build("mobilenet_v2").parameters())

    assert convolution.shape == (32, 3, 3, 3)
    assert convolution.is_contiguous(memory_format=torch.channels_last)
    assert not convolution.is_contiguous()


@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_1", "sample:small_cnn"])
def test_weights_follow_the_seed(name: str) -> None:
    first, again, other = (flat.to_flat(models.build(name, seed=seed)) for seed in (1, 1, 2))

    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_1", "sample:small_cnn"])
def test_global_random_state_is_untouched(name: str) -> None:
    before = torch.get_rng_state()

    models.build(name, seed=3)

    assert torch.equal(torch.get_rng_state(), before)


# Parameters with 1,000 classes and inputs of the last layer, as torchvision documents them.
TORCHVISION = {
    "resnet18": (11_689_512, 512),
    "squeezenet1_1": (1_235_496, 512),
    "shufflenet_v2_x0_5": (1_366_792, 1024),
    "efficientnet_b0": (5_288_548, 1280),
    "mnasnet0_5": (2_218_512, 1280),
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_a_classifier_of_torchvision_trains_and_travels(name: str) -> None:
    model = models.build(name, 7)
    whole, last = TORCHVISION[name]
    before = flat.to_flat(model)
    batch = ImageSet(data().images, data().labels % 7, tuple("abcdefg"))

    (epoch,) = train(model, batch, epochs=1, batch_size=8, learning_rate=0.01, seed=0)
    after = flat.to_flat(model)
    other = models.build(name, 7, seed=1)
    flat.from_flat(other, after)

    assert parameters(model) == whole - 993 * (last + 1)
    assert (before != after).any()
    assert epoch.samples == 8
    assert evaluate(other, batch).loss == evaluate(model, batch).loss


def test_no_classifier_of_torchvision_is_taken_for_a_slip_of_the_pen() -> None:
    known = torchvision_models.models.list_models(module=torchvision_models.models)

    assert len(known) >= 80
    assert [model_names.parse_model(name) for name in known] == known


def test_trying_a_model_leaves_no_trace() -> None:
    tried = models.build("resnet18").state_dict()

    assert torch.equal(tried["bn1.running_mean"], torch.zeros(64))
    assert torch.equal(tried["bn1.running_var"], torch.ones(64))
    assert tried["bn1.num_batches_tracked"] == 0


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (
            "resnt18",
            r"neither one of mobilenet_v1, .* nor in torchvision; did you mean resnet18",
        ),
        ("zzz", r"neither one of mobilenet_v1, .* nor in torchvision$"),
        ("fcn_resnet50", "torchvision has it, but not as a classifier of images$"),
        ("ssd300_vgg16", "torchvision has it, but not as a classifier of images$"),
        ("quantized_resnet18", "torchvision has it, but not as a classifier of images$"),
        ("r3d_18", "torchvision has it, but not as a classifier of images$"),
        ("vit_b_16", "it takes no images of 32x32 pixels: AssertionError: Wrong image height!"),
        ("alexnet", "it takes no images of 32x32 pixels: RuntimeError: Given input size"),
        ("googlenet", r"expected logits \[2, 10\] of 2 images, found GoogLeNetOutputs$"),
    ],
)
@pytest.mark.filterwarnings("ignore:The default weight initialization:FutureWarning")
def test_what_cannot_be_trained_is_refused(name: str, why: str) -> None:
    with pytest.raises(ModelError, match=f"^model {name}: {why}"):
        models.build(name)


# -- the user's own


def test_the_example_is_a_model_like_any_other() -> None:
    model = models.build("sample:small_cnn", classes=4)
    before = evaluate(model, batch := ImageSet(data().images, data().labels % 4, tuple("abcd")))

    train(model, batch, epochs=5, batch_size=8, learning_rate=0.01, seed=0)

    assert parameters(models.build("sample:small_cnn")) == 6_426
    assert next(model.parameters()).is_contiguous(memory_format=torch.channels_last)
    assert evaluate(model, batch).loss < before.loss


def test_integers_and_odd_buffers_of_a_users_model_stay_its_own(own_models: Path) -> None:
    (own_models / "odd.py").write_text(ODD)
    model = models.build("odd:Odd", 3)

    flat.from_flat(model, flat.to_flat(model) + 1)

    # 3 * 3072 weights, 3 biases, one scale; neither the counter nor the mask.
    assert flat.to_flat(model).shape == (3 * 3072 + 3 + 1,)
    assert (model.calls, model.scale) == (0, 2.0)
    assert model.mask.dtype == torch.bool


ODD = """
import torch
from torch import nn

class Odd(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.head = nn.Linear(3072, classes)
        self.register_buffer("calls", torch.tensor(0))
        self.register_buffer("scale", torch.tensor(1.0))
        self.register_buffer("mask", torch.ones(2, dtype=torch.bool))

    def forward(self, images):
        self.calls += 1
        return self.scale * self.head(images.flatten(1))
"""


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("def net(classes): return 3", "expected a torch.nn.Module, found 3"),
        ("def net(): return 3", r"TypeError: net\(\) takes 0 positional arguments but 1 was given"),
        ("def net(classes):\n  return classes / 0", "models/mine.py, line 2: ZeroDivisionError: "),
        (
            "from torch import nn\ndef net(classes): return nn.Flatten()",
            r"expected logits \[2, 10\] of 2 images, found \[2, 3072\]",
        ),
        (
            "from torch import nn\nclass net(nn.Module):\n"
            "  def __init__(self, classes): super().__init__()\n"
            "  def forward(self, images): return images.view(2, -1)",
            "it takes no images of 32x32 pixels: models/mine.py, line 4: RuntimeError: view size",
        ),
    ],
)
def test_a_users_model_that_is_none_is_refused(own_models: Path, code: str, why: str) -> None:
    (own_models / "mine.py").write_text(code)
    with pytest.raises(ModelError, match=f"^model mine:net: {why}"):
        models.build("mine:net")


def test_an_edition_is_one_of_the_users_code(own_models: Path) -> None:
    file = own_models / "mine.py"
    file.write_text("a = 1")
    first = models.edition("mine:net")
    file.write_text("a = 2")

    assert models.edition("mine:net") not in (first, "")
    assert models.edition("resnet18") == ""


def test_a_foreign_failure_of_torchvision_is_not_hidden() -> None:
    script = """
import sys, types
broken = types.ModuleType("torchvision")
broken.__getattr__ = lambda name: (_ for _ in ()).throw(RuntimeError("foreign"))
sys.modules["torchvision"] = broken
import fedbench.learning.torchvision_models
"""
    argv = [sys.executable, "-c", script]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)

    assert done.returncode == 1
    assert done.stderr.endswith("RuntimeError: foreign\n")


# -- the first convolution's stride


@pytest.mark.parametrize("name", models.MODELS)
@pytest.mark.parametrize(("stride", "side"), [(1, 2), (2, 1)])
def test_the_last_map_grows_and_the_weights_stay(name: str, stride: int, side: int) -> None:
    model = models.build(name)
    weights, sides = flat.to_flat(model), []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _module, _input, out: sides.append(out.shape[2]))

    logits = set_stem_stride(model, stride).eval()(torch.zeros(2, 3, 32, 32))

    assert logits.shape == (2, 10)
    assert sides[0] == 32 // stride
    assert sides[-1] == side
    assert (flat.to_flat(model) == weights).all()


def test_a_model_whose_own_stem_has_stride_1_is_left_as_it_is() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    assert set_stem_stride(model, 2)[0].stride == (1, 1)


def test_a_model_without_a_convolution_has_no_stem() -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    assert set_stem_stride(linear, 2) is linear
    with pytest.raises(ValueError, match="no convolution"):
        set_stem_stride(linear, 1)
