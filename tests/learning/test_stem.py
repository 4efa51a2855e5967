import pytest
import torch
from torch import nn

from fedbench.learning import flat, models
from fedbench.learning.stem import set_stem_stride


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
