"""Which files of a local data set are for training, and which for the test."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedbench.errors import DataError
from fedbench.host.data.division import draw, generator
from fedbench.host.data.image_folders import ImageFolder, Split
from fedbench.host.data.parquet import ParquetFiles
from fedbench.host.data.parquet_columns import ColumnNames

LAYOUT = (
    "expected train/<class>/*.png and test/<class>/*.png, or train*.parquet and test*.parquet; "
    "without test images, every sixth image is taken for the test"
)
_TEST = ("test", "validation", "valid", "val")  # the first that is there
_TEST_SHARE = 1 / 6  # as CIFAR-10's

Files = ImageFolder | ParquetFiles


def find_splits(
    source: Path, column_names: ColumnNames, names: Sequence[str] | None
) -> tuple[Files, Files | None]:
    """Find training and test images; no image is read yet.

    There are no test images where all of `source` is for training: see `hold_out`. `names` are
    the classes of Parquet files that do not name them.

    Raises:
        DataError: there is no such folder, or it holds neither images nor Parquet files, or only
            test images, or `column_names` has some for image files.
    """
    if source.suffix == ".parquet" and source.is_file():
        return ParquetFiles.open("train", [source], column_names, names=names), None
    if not source.is_dir():
        raise DataError(f"{source}: no such folder", "pass DATA=<folder>; " + LAYOUT)
    files = sorted(source.glob("*.parquet"))
    if files:
        return _in_parquet(source, files, column_names, names)
    if column_names != ColumnNames():
        raise DataError(
            f"{source}: data.image_column and data.label_column are for Parquet files",
            "leave them out: this folder has none",
        )
    return _in_folders(source)


def hold_out(whole: Split, source: Path) -> tuple[Split, Split]:
    """Take test images from a data set that has none, classes in proportion.

    They are the same whatever the experiment's seed.

    Raises:
        DataError: there are too few images.
    """
    test = draw(whole.labels, round(len(whole.labels) * _TEST_SHARE), generator(0, "test"))
    if len(test) == 0:
        raise DataError(f"{source}: {len(whole.labels)} images are too few to test on some", LAYOUT)
    train = np.setdiff1d(np.arange(len(whole.labels)), test)
    return whole.take(train), whole.take(test)


def _in_parquet(
    source: Path, files: list[Path], column_names: ColumnNames, names: Sequence[str] | None
) -> tuple[Files, Files | None]:
    by_split = [
        [file for file in files if re.match(rf"{word}(?![a-z])", file.name)] for word in _TEST
    ]
    test = next(filter(None, by_split), None)
    train = [file for file in files if file.name.startswith("train")]
    if test and not train:
        raise DataError(f"{source}: holds no train images", LAYOUT)
    first = ParquetFiles.open("train", train or files, column_names, names=names)
    if not test:
        return first, None
    return first, ParquetFiles.open("test", test, column_names, like=first.classes)


def _in_folders(source: Path) -> tuple[Files, Files | None]:
    test = next((source / word for word in _TEST if (source / word).is_dir()), None)
    if (source / "train").is_dir():
        return ImageFolder.find(source / "train"), ImageFolder.find(test) if test else None
    if test or not any(path.is_dir() for path in source.iterdir()):
        raise DataError(f"{source}: holds no train images", LAYOUT)
    return ImageFolder.find(source), None
