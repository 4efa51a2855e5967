"""Parquet files in the schema of Hugging Face's image data sets -> arrays of 32x32 RGB images.

The image column is a struct of `bytes` (an encoded image) and `path`, the label column holds
integers; the schema's metadata under `huggingface` may name the classes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fedbench.errors import DataError
from fedbench.host.images import Images, Labels, Split, decode, stack
from fedbench.host.machine import Say

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "fine_label")
_HINT = (
    "expected the schema of Hugging Face's uoft-cs/cifar10: "
    "a column img or image with encoded images (struct of bytes and path), "
    "and a column label or fine_label with integers from 0"
)


@dataclass(frozen=True)
class ParquetFiles:
    """One split as Parquet files, all of one schema."""

    split: str
    files: list[Path]
    names: tuple[str, ...] | None

    @classmethod
    def find(
        cls, folder: Path, split: str, names: tuple[str, ...] | None = None
    ) -> ParquetFiles | None:
        """`<split>*.parquet` in `folder`, or None; no image is read yet.

        `names` are the classes where the file does not name them.

        Raises:
            DataError: the first file is not Parquet or lacks a column.
        """
        files = sorted(folder.glob(f"{split}*.parquet"))
        return cls(split, files, _class_names(files[0]) or names) if files else None

    def read(self, say: Say) -> Split:
        """Decode every image.

        Raises:
            DataError: a file is not Parquet, lacks a column, or has a row without a readable
                image or with a label that is not one of the classes.
        """
        total = sum(_count(file) for file in self.files)
        labels = np.empty(total, np.int64)
        images = stack(self._decoded(labels), total, self.split, say)
        return Split(images, labels)

    def _decoded(self, labels: Labels) -> Iterator[Images]:
        rows = (row for file in self.files for row in _rows(file, self.names))
        for index, (where, image, label) in enumerate(rows):
            labels[index] = label
            yield decode(BytesIO(image), where)


def _rows(file: Path, names: tuple[str, ...] | None) -> Iterator[tuple[str, bytes, int]]:
    with _reading(file), pq.ParquetFile(file) as reader:
        columns = _columns(file, reader.schema_arrow)
        row = 0
        for batch in reader.iter_batches(1024, columns=list(columns)):
            images, labels = (batch.column(name).to_pylist() for name in columns)
            for image, label in zip(images, labels, strict=True):
                where = f"{file}: row {row}"
                yield where, _image(image, where), _label(label, names, where)
                row += 1


def _image(value: dict[str, bytes | None] | None, where: str) -> bytes:
    if value is None or not value["bytes"]:
        raise DataError(f"{where}: holds no image", _HINT)
    return value["bytes"]


def _label(value: int | None, names: tuple[str, ...] | None, where: str) -> int:
    if value is None or value < 0 or (names is not None and value >= len(names)):
        expected = f"0 to {len(names) - 1}" if names else "0 or more"
        raise DataError(f"{where}: label {value}, expected {expected}", _HINT)
    return value


def _count(file: Path) -> int:
    with _reading(file), pq.ParquetFile(file) as reader:
        return int(reader.metadata.num_rows)


def _class_names(file: Path) -> tuple[str, ...] | None:
    with _reading(file), pq.ParquetFile(file) as reader:
        schema = reader.schema_arrow
        _, label = _columns(file, schema)
        described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = described.get("info", {}).get("features", {})
    names = features.get(label, {}).get("names")
    return tuple(names) if names else None


def _columns(file: Path, schema: pa.Schema) -> tuple[str, str]:
    image = _column(file, schema, IMAGE_COLUMNS)
    label = _column(file, schema, LABEL_COLUMNS)
    kind = schema.field(image).type
    if not pa.types.is_struct(kind) or pa.field("bytes", pa.binary()) not in list(kind):
        raise DataError(
            f"{file}: column {image}: expected a struct with bytes, found {kind}", _HINT
        )
    kind = schema.field(label).type
    if not pa.types.is_integer(kind):
        raise DataError(f"{file}: column {label}: expected integers, found {kind}", _HINT)
    return image, label


def _column(file: Path, schema: pa.Schema, accepted: tuple[str, ...]) -> str:
    for name in accepted:
        if name in schema.names:
            return name
    wanted, found = " or ".join(accepted), ", ".join(schema.names) or "none"
    raise DataError(f"{file}: no column {wanted}; found {found}", _HINT)


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{file}: not readable as Parquet: {error}", _HINT) from None
