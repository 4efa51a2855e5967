import pytest

from fedbench.config.model_names import MODELS, is_user_model, parse_model

TORCHVISIONS = [
    "resnet18",
    "squeezenet1_1",
    "regnet_x_16gf",
    "mnasnet0_5",
    "quantized_mobilenet_v2",
]
OWN = ["sample:small_cnn", "Nets:LeNet", "_a:b", "mobilenet_v2:mine"]


@pytest.mark.parametrize("name", [*MODELS, *TORCHVISIONS, *OWN])
def test_a_name_that_can_be_stays_as_it_is(name: str) -> None:
    assert parse_model(name) == name
    assert is_user_model(name) == (name in OWN)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mobilenetv2", "; did you mean mobilenet_v2 or mobilenet_v1?"),
        ("mobilenet-v2", "; did you mean mobilenet_v2 or mobilenet_v1?"),
        ("MobileNet_V3_Small", "; did you mean mobilenet_v3_small?"),
        ("mobilnet_v3_large", "; did you mean mobilenet_v3_large?"),
        ("ResNet18", ""),
        ("example:", ""),
        (":small_cnn", ""),
        ("a:b:c", ""),
        ("models.example:cnn", ""),
        ("../example:cnn", ""),
        ("rest net", ""),
        ("resnet18\n", ""),
        ("résnet", ""),
        ("", ""),
    ],
)
def test_a_name_that_cannot_be_is_refused(name: str, hint: str) -> None:
    with pytest.raises(ValueError, match="or module:callable, found") as caught:
        parse_model(name)
    assert str(caught.value).endswith(f"found {name!r}{hint}")
