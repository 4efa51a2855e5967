"""Data sets by name -> decoded images: `digits`, `cifar10`, or any `folder` of images."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedbench.errors import DataError
from fedbench.host.data import digits
from fedbench.host.data.image_folders import Split
from fedbench.host.data.parquet_columns import ColumnNames
from fedbench.host.data.splits import LAYOUT, find_splits, hold_out
from fedbench.host.data.store import read_cached, write_cached
from fedbench.host.say import Say

CIFAR10 = "uoft-cs/cifar10"
LOCAL_CIFAR10 = Path(__file__).resolve().parents[3] / "data" / "cifar10"
CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
_BY_TYPE = ColumnNames()


@dataclass(frozen=True)
class DataSet:
    """Decoded images with their class names; a label is a position in `classes`."""

    classes: tuple[str, ...]
    train: Split
    test: Split


class Embedded:
    """`digits`, which comes with the package."""

    fingerprint = digits.SHA256

    def load(self, cache: Path, say: Say) -> DataSet:  # noqa: ARG002 - nothing to cache or report
        """Decode the digits."""
        return DataSet(digits.CLASSES, *digits.load())


class Hub:
    """`cifar10` from the Hugging Face hub; `huggingface_hub` keeps its own copy of the download."""

    fingerprint = CIFAR10

    def load(self, cache: Path, say: Say) -> DataSet:
        """Download where needed, then decode.

        Raises:
            DataError: the hub is out of reach and nothing was downloaded before.
        """
        # Only this path needs them, and they take 0.3 s.
        from httpx import HTTPError  # noqa: PLC0415
        from huggingface_hub import snapshot_download  # noqa: PLC0415

        say(f"fetching CIFAR-10 (144 MB) from Hugging Face: {CIFAR10}")
        try:
            copy = snapshot_download(CIFAR10, repo_type="dataset", allow_patterns="*.parquet")
        except (OSError, HTTPError) as error:  # it passes httpx' errors on; its own are OSErrors
            raise DataError(
                f"cifar10: the Hugging Face data set {CIFAR10} cannot be fetched: {error}",
                "pass DATA=<folder> with CIFAR-10 as train*.parquet and test*.parquet, "
                "or as train/<class>/*.png and test/<class>/*.png; "
                "or put it into data/cifar10 of this checkout",
            ) from None
        return Folder("cifar10", Path(copy) / "plain_text", _BY_TYPE).load(cache, say)


class Folder:
    """`cifar10`, or the user's images, in a local folder as image files or as Parquet.

    Raises:
        DataError: the folder or a class is missing, the splits differ in their classes, the
            classes are not those of CIFAR-10 although it was asked for, or see `find_splits`.
    """

    def __init__(self, name: str, folder: Path, column_names: ColumnNames) -> None:
        self._name = name
        self._folder = folder
        self._column_names = column_names
        self._names = CIFAR10_CLASSES if name == "cifar10" else None
        self._train, self._test = find_splits(folder, column_names, self._names)
        self._check_names()
        self.fingerprint = self._stamp()

    def load(self, cache: Path, say: Say) -> DataSet:
        """Decode, or take what was decoded before from the folder `cache`.

        Raises:
            DataError: an image or label is unreadable or wrong; the message names it.
        """
        place = hashlib.sha256(str(self._folder.resolve()).encode()).hexdigest()
        file = cache / f"{place[:16]}.safetensors"
        splits = read_cached(file, self.fingerprint)
        if splits is None:
            say(f"decoding {self._folder}")
            splits = self._read(say)
            self._check_labels(*splits)
            write_cached(file, self.fingerprint, *splits)
        if self._test is None:
            held = f"{len(splits[1].labels)} of {sum(len(split.labels) for split in splits)}"
            say(f"{self._folder}: has no test images; {held} are taken for the test")
        return DataSet(self._train.names, *splits)

    def _read(self, say: Say) -> tuple[Split, Split]:
        train = self._train.read(say)
        return (train, self._test.read(say)) if self._test else hold_out(train, self._folder)

    def _stamp(self) -> str:
        """Identify the content without reading it: all files, their sizes and times."""
        image, label = self._column_names.image, self._column_names.label
        # Keys of data that runs name depend on this text, so its words must stay.
        naming = f"Wanted(image={image!r}, label={label!r})"
        digest = hashlib.sha256(f"{self._name} {naming}".encode())
        for file in [*self._train.files, *(self._test.files if self._test else [])]:
            stat = file.stat()
            digest.update(f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def _check_names(self) -> None:
        train, test = self._train.names, (self._test or self._train).names
        if train != test:
            raise DataError(
                f"{self._folder}: train has the classes {', '.join(train)}, test {', '.join(test)}",
                "both must have the same classes",
            )
        if self._names is not None and train != self._names:
            raise DataError(
                f"{self._folder}: not CIFAR-10: the classes are {', '.join(train)}",
                "for images of your own, set data.name=folder",
            )

    def _check_labels(self, train: Split, test: Split) -> None:
        for split, name in ((train, "train"), (test, "test")):
            if len(split.labels) == 0:
                raise DataError(f"{self._folder}: {name} holds no images", LAYOUT)
        names, known = self._train.names, np.unique(train.labels)
        if len(known) < 2:
            raise DataError(
                f"{self._folder}: all training images have one label, {names[known[0]]}",
                "there must be at least two classes to tell apart",
            )
        strange = np.setdiff1d(test.labels, known)
        if len(strange) > 0:
            raise DataError(
                f"{self._folder}: test has label {names[strange[0]]}, which no training image has",
                "both must have the same classes",
            )


class LocalCopy(Folder):
    """`cifar10` in the checkout's `data/cifar10`, which needs neither a network nor a name."""

    def load(self, cache: Path, say: Say) -> DataSet:
        """Decode it as any folder, and say which folder it is, since nobody named it."""
        say(f"CIFAR-10 is the copy in {self._folder} (--data names another)")
        return super().load(cache, say)


Opened = Embedded | Hub | Folder


def open_data_set(name: str, source: Path | None, column_names: ColumnNames = _BY_TYPE) -> Opened:
    """Find the data set of that name (`Data.name`); nothing is decoded or fetched yet.

    Without a `source`, CIFAR-10 is that in `LOCAL_CIFAR10` if the folder is there, else the hub's.

    Raises:
        DataError: it needs a folder and has none, takes none and has one, or see `Folder`.
    """
    if source is not None and name == "digits":
        raise DataError(
            f"{source}: the data set digits is embedded and reads no folder",
            "to train on this folder, set data.name=folder (or cifar10)",
        )
    if source is not None:
        try:
            return Folder(name, source, column_names)
        except OSError as error:
            raise DataError(f"{source}: cannot be read: {error}", "check the files there") from None
    if name == "folder":
        raise DataError("the data set folder needs a folder of images", "pass DATA=<folder>")
    if name == "digits":
        return Embedded()
    return LocalCopy(name, LOCAL_CIFAR10, column_names) if LOCAL_CIFAR10.is_dir() else Hub()
