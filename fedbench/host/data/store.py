"""Images on disk as safetensors, written so that a crash never leaves half a file in place."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fedbench.errors import DataError
from fedbench.host.data.image_folders import Labels, Split


def read_cached(file: Path, fingerprint: str) -> tuple[Split, Split] | None:
    """Read the decoded (train, test) of that fingerprint, if the file holds it."""
    if read_metadata(file).get("fingerprint") != fingerprint:
        return None
    with safe_open(file, framework="numpy") as tensors:
        get = tensors.get_tensor
        train = Split(get("train.images"), get("train.labels"))
        return train, Split(get("test.images"), get("test.labels"))


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


def read_labels(file: Path) -> Labels:
    """Read the labels int64 [N] of one file of a partition; its images are not read."""
    with safe_open(file, framework="numpy") as tensors:
        labels: Labels = tensors.get_tensor("labels")
    return labels


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
