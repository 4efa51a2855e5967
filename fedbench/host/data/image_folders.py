"""Folders of image files, `<class>/*.png` and the like -> arrays of 32x32 RGB images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from fedbench.errors import DataError
from fedbench.host.say import Say

SIDE = 32
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
_FORMATS = ("BMP", "JPEG", "PNG", "WEBP")
_IMAGES_BETWEEN_NOTES = 10_000
MOST_PIXELS = 2**26
"""Of an image: decoded, it takes 3 bytes for each, and 201 MB in all."""

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Decoded images: `images` uint8 [N, 32, 32, 3] (NHWC, RGB), `labels` int64 [N]."""

    images: Images
    labels: Labels

    def take(self, chosen: Labels) -> Split:
        """Return the images and labels at the positions `chosen`."""
        return Split(self.images[chosen], self.labels[chosen])


def decode(file: Path | BytesIO, where: str) -> Images:
    """Decode an image of any size -> uint8 [32, 32, 3], RGB.

    Raises:
        DataError: it does not decode; the message begins with `where`.
    """
    try:
        with Image.open(file, formats=_FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are too many")
            rgb = _eight_bits(image).convert("RGB")
    except UnidentifiedImageError:
        raise DataError(
            f"{where}: not a PNG, JPEG, BMP or WebP image", "remove or replace it"
        ) from None
    except Exception as error:  # a decoder raises whatever a damaged image leads it to
        raise DataError(f"{where}: does not decode: {error}", "remove or replace it") from None
    if rgb.size != (SIDE, SIDE):
        rgb = rgb.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(rgb)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Keep the upper 8 of 16 bits: Pillow would take all that is above 255 for white."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def stack(decoded: Iterable[Images], total: int, what: str, say: Say) -> Images:
    """Stack `total` images [32, 32, 3] -> [total, 32, 32, 3], held once in memory; say how far."""
    images = np.empty((total, SIDE, SIDE, 3), np.uint8)
    for count, image in enumerate(decoded, start=1):
        images[count - 1] = image
        if count % _IMAGES_BETWEEN_NOTES == 0:
            say(f"{what}: {count:,} of {total:,} images decoded")
    return images


@dataclass(frozen=True)
class ImageFolder:
    """One split as a folder: one folder per class, named as the class."""

    folder: Path
    classes: dict[str, list[Path]]

    @classmethod
    def find(cls, folder: Path) -> ImageFolder:
        """List the classes of `folder` and their images; nothing is decoded yet.

        Raises:
            DataError: no class folder, or one without images.
        """
        expected = f"expected {folder.name}/<class>/*.png (or {', '.join(SUFFIXES)})"
        inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        classes = {path.name: _image_files(path) for path in inside if path.is_dir()}
        if not classes:
            raise DataError(f"{folder}: holds no class folders", expected)
        for name, files in classes.items():
            if not files:
                raise DataError(f"{folder / name}: holds no images", expected)
        return cls(folder, classes)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names, in the order of the labels."""
        return tuple(self.classes)

    @property
    def files(self) -> list[Path]:
        """All image files, in the order of the labels."""
        return [file for files in self.classes.values() for file in files]

    def read(self, say: Say) -> Split:
        """Decode every image.

        Raises:
            DataError: a file is not an image.
        """
        files = self.files
        decoded = (decode(file, str(file)) for file in files)
        sizes = [len(images) for images in self.classes.values()]
        labels = np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)
        return Split(stack(decoded, len(files), self.folder.name, say), labels)


def _image_files(folder: Path) -> list[Path]:
    images = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    return sorted(path for path in images if not path.is_fifo())  # opening one waits for ever
