import numpy as np
import pytest
import torch

from fedbench.learning.augment import PADDING, flip_crop

DEVICES = ["cpu", *(["cuda:0"] if torch.cuda.is_available() else [])]


def pictures(count: int, device: str = "cpu") -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return images.to(device)


def variants(image: np.ndarray) -> dict[bytes, tuple[bool, int, int]]:
    """All that flip and crop can make of an image, by NumPy's own padding."""
    padded = np.pad(image, ((PADDING, PADDING), (PADDING, PADDING), (0, 0)), mode="reflect")
    made = {}
    for down in range(2 * PADDING + 1):
        for right in range(2 * PADDING + 1):
            crop = padded[down : down + 32, right : right + 32]
            made[crop.tobytes()] = (False, down, right)
            made[crop[:, ::-1].tobytes()] = (True, down, right)
    return made


@pytest.mark.parametrize("device", DEVICES)
def test_every_crop_of_the_padded_image_and_its_mirror_image_comes_up(device: str) -> None:
    image = pictures(1, device)
    known = variants(image[0].cpu().numpy())

    changed = flip_crop(image.expand(4000, -1, -1, -1))

    assert changed.dtype == torch.uint8
    assert changed.shape == (4000, 32, 32, 3)
    # Of 162, each is left out by 4,000 draws with a chance of 2e-11.
    assert {known[image.tobytes()] for image in changed.cpu().numpy()} == set(known.values())


def test_each_image_is_changed_by_itself() -> None:
    images = pictures(40)

    changed = flip_crop(images).numpy()

    draws = [variants(i)[c.tobytes()] for i, c in zip(images.numpy(), changed, strict=True)]
    assert len(set(draws)) > 20


def test_the_default_generator_decides() -> None:
    images = pictures(8)
    with torch.random.fork_rng():
        results = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            results.append(flip_crop(images))

    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_the_images_that_were_given_stay() -> None:
    images = pictures(8)
    before = images.clone()

    flip_crop(images)

    assert torch.equal(images, before)
