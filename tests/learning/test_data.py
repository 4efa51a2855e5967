import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fedbench.learning import data

CLASSES = {"classes": json.dumps(["cat", "dog"])}


def tensors(n: int = 5) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "images": torch.randint(256, (n, 32, 32, 3), generator=generator, dtype=torch.uint8),
        "labels": torch.arange(n) % 2,
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "client-0.safetensors"


def test_images_and_labels_are_read_as_written(path: Path) -> None:
    save_file(tensors(), path, CLASSES)

    images = data.load(path)

    assert len(images) == 5
    assert images.classes == ("cat", "dog")
    assert torch.equal(images.images, tensors()["images"])
    assert torch.equal(images.labels, tensors()["labels"])


def test_images_outlive_their_file(path: Path) -> None:
    save_file(tensors(), path, CLASSES)
    images = data.load(path)

    path.write_bytes(b"")  # a mapped file would now kill the process on access

    assert torch.equal(images.images, tensors()["images"])


@pytest.mark.parametrize("index", [torch.tensor([4, 0, 4]), slice(1, 4)])
def test_batch_is_scaled_and_channels_last(path: Path, index: Tensor | slice) -> None:
    save_file(tensors(), path, CLASSES)

    images, labels = data.load(path).batch(index)

    chosen = tensors()["images"][index].double().numpy()
    expected = torch.from_numpy((chosen / 255 - 0.5) / 0.5).permute(0, 3, 1, 2)
    torch.testing.assert_close(images, expected.float(), rtol=0, atol=1e-6)
    assert images.shape == (3, 3, 32, 32)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(labels, tensors()["labels"][index])


def test_batch_leaves_the_images_alone(path: Path) -> None:
    save_file(tensors(), path, CLASSES)
    images = data.load(path)

    images.batch(slice(None))

    assert torch.equal(images.images, tensors()["images"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, r"images is missing"),
        ({"labels": None}, r"labels is missing"),
        (
            {"images": torch.zeros(5, 3, 32, 32, dtype=torch.uint8)},
            r"images: expected torch\.uint8 \[N, 32, 32, 3\], found torch\.uint8 \[5, 3, 32, 32\]",
        ),
        (
            {"images": torch.zeros(5, 32, 32, 3)},
            r"images: expected torch\.uint8 \[N, 32, 32, 3\], found torch\.float32",
        ),
        (
            {"labels": torch.zeros(5, dtype=torch.int32)},
            r"labels: expected torch\.int64 \[N\], found torch\.int32 \[5\]",
        ),
        (
            {"labels": torch.zeros(5, 1, dtype=torch.int64)},
            r"labels: expected torch\.int64 \[N\], found torch\.int64 \[5, 1\]",
        ),
        (
            {"labels": torch.tensor(1)},
            r"labels: expected torch\.int64 \[N\], found torch\.int64 \[\]",
        ),
        ({"labels": torch.zeros(4, dtype=torch.int64)}, r"5 images and 4 labels, expected N each"),
        (tensors(0), r"0 images and 0 labels"),
        ({"labels": torch.full((5,), 2)}, r"labels: expected 0 to 1, one for each class"),
        ({"labels": torch.full((5,), -1)}, r"labels: expected 0 to 1, one for each class"),
    ],
)
def test_wrong_contents(path: Path, change: dict[str, Tensor | None], message: str) -> None:
    merged = {**tensors(), **change}
    save_file(
        {name: tensor for name, tensor in merged.items() if tensor is not None}, path, CLASSES
    )

    with pytest.raises(ValueError, match=rf"client-0\.safetensors: {message}"):
        data.load(path)


@pytest.mark.parametrize("metadata", [None, {"classes": "cat"}, {"classes": "2"}])
def test_wrong_metadata(path: Path, metadata: dict[str, str] | None) -> None:
    save_file(tensors(), path, metadata)

    with pytest.raises(ValueError, match=r"client-0\.safetensors: metadata: expected classes"):
        data.load(path)


def test_no_safetensors(path: Path) -> None:
    path.write_text("not tensors, but long enough to hold a header's length")

    with pytest.raises(ValueError, match=r"client-0\.safetensors: cannot be read as safetensors"):
        data.load(path)


def test_no_file(path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"client-0\.safetensors"):
        data.load(path)
