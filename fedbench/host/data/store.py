"""Images on disk as safetensors, written so that a crash never leaves half a file in place."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fedbench.errors import DataError
from fedbench.host.data.image_folders import SIDE, Labels, Split
from fedbench.records.files import UNREADABLE

_IMAGE = (SIDE, SIDE, 3)


def read_cached(file: Path, fingerprint: str) -> tuple[Split, Split] | None:
    """Read the decoded (train, test) of that fingerprint, if the file holds it whole."""
    if read_metadata(file).get("fingerprint") != fingerprint:
        return None
    try:
        with safe_open(file, framework="numpy") as tensors:
            train, test = (
                Split(tensors.get_tensor(f"{name}.images"), tensors.get_tensor(f"{name}.labels"))
                for name in ("train", "test")
            )
    except (OSError, SafetensorError):  # it changed since it was written
        return None
    return (train, test) if _is_whole(train) and _is_whole(test) else None


def write_cached(file: Path, fingerprint: str, train: Split, test: Split) -> None:
    """Replace the file, which holds the latest state of one source.

    Raises:
        DataError: it cannot be written.
    """
    tensors = {
        f"{name}.{key}": value
        for name, split in (("train", train), ("test", test))
        for key, value in (("images", split.images), ("labels", split.labels))
    }
    with _temporary(file) as new:
        save_file(tensors, new, metadata={"fingerprint": fingerprint})
        new.replace(file)


def write_partition(folder: Path, files: dict[str, Split | Path], metadata: dict[str, str]) -> None:
    """Make `folder` with one safetensors file per name; a Path is an equal file to hard-link.

    Each holds `images` uint8 [N, 32, 32, 3] and `labels` int64 [N]. All may be read by anyone,
    since the user of a container is another. A folder of that name is replaced.

    Raises:
        DataError: it cannot be written.
    """
    with _temporary(folder) as new:
        folder.parent.chmod(0o755)
        new.mkdir()
        new.chmod(0o755)
        for name, content in files.items():
            if isinstance(content, Path):
                link(content, new / name)
            else:
                tensors = {"images": content.images, "labels": content.labels}
                save_file(tensors, new / name, metadata=metadata)
                (new / name).chmod(0o644)
        if folder.exists():
            folder.rename(new.with_name("old"))
        new.rename(folder)


def link(existing: Path, new: Path) -> None:
    """Hard-link, or copy where the file system cannot (another device, FAT)."""
    try:
        os.link(existing, new)
    except OSError:
        shutil.copy(existing, new)


def read_metadata(file: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file; empty if there is no such file or it is broken."""
    try:
        with safe_open(file, framework="numpy") as tensors:
            return dict(tensors.metadata() or {})
    except (OSError, SafetensorError):
        return {}


def holds(file: Path, recipe: str) -> bool:
    """Say whether a file of a partition is of that recipe and whole; its images are not read."""
    try:
        with safe_open(file, framework="numpy") as tensors:
            facts = tensors.metadata() or {}
            images, labels = tensors.get_slice("images"), tensors.get_tensor("labels")
            is_image_set = images.get_dtype() == "U8" and images.get_shape()[1:] == list(_IMAGE)
            count, classes = images.get_shape()[0], len(json.loads(facts["classes"]))
    except (OSError, SafetensorError, *UNREADABLE):
        return False
    return facts.get("recipe") == recipe and is_image_set and _are_labels(labels, count, classes)


def read_labels(file: Path) -> Labels:
    """Read the labels int64 [N] of one file of a partition; its images are not read.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with safe_open(file, framework="numpy") as tensors:
            labels: Labels = tensors.get_tensor("labels")
    except (OSError, SafetensorError) as error:
        hint = "remove the folder that it is in: it is written anew"
        raise DataError(f"{file}: cannot be read: {error}", hint) from None
    return labels


def _is_whole(split: Split) -> bool:
    images, labels = split.images, split.labels
    classes = int(labels.max()) + 1 if labels.size else 0
    is_image_set = images.dtype == np.uint8 and images.shape[1:] == _IMAGE
    return is_image_set and _are_labels(labels, len(images), classes)


def _are_labels(labels: Labels, count: int, classes: int) -> bool:
    if labels.dtype != np.int64 or labels.shape != (count,) or not count:
        return False
    return int(labels.min()) >= 0 and int(labels.max()) < classes


@contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """Give a path beside `target` on the same file system, gone afterwards unless renamed."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as folder:
            yield Path(folder) / "new"
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{target}: cannot be written: {error}", "make room, or choose another data folder"
        ) from None
