"""Parquet files with a column of encoded images and one of labels -> arrays of 32x32 RGB images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fedbench.errors import DataError
from fedbench.host.data.image_folders import Images, Labels, Split, decode, stack
from fedbench.host.data.parquet_columns import ColumnNames, ImageSchema, choose_columns
from fedbench.host.say import Say

Classes = dict[int | str, str]
_SHOWN = 12
_HINT = "expected Parquet files with a column of encoded images and a column of labels"
_ROW = "remove the row or mend it"


@dataclass(frozen=True)
class ParquetFiles:
    """One split as Parquet files; `classes` are the names by the value in the label column."""

    split: str
    files: list[Path]
    column_names: ColumnNames
    classes: Classes

    @classmethod
    def open(
        cls,
        split: str,
        files: list[Path],
        column_names: ColumnNames,
        *,
        names: Sequence[str] | None = None,
        like: Classes | None = None,
    ) -> ParquetFiles:
        """Read which classes there are; no image is read yet.

        They are those that the first file's metadata names, else those of another split (`like`),
        else `names`, else the values themselves.

        Raises:
            DataError: a file is not Parquet, or lacks a column.
        """
        named = _schema(files[0], column_names).classes
        if named:
            return cls(split, files, column_names, dict(enumerate(named)))
        return cls(split, files, column_names, like or _classes(files, column_names, names))

    @property
    def names(self) -> tuple[str, ...]:
        """Class names, in the order of the labels."""
        return tuple(self.classes.values())

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
        positions = {value: position for position, value in enumerate(self.classes)}
        rows = (row for file in self.files for row in _rows(file, self.column_names))
        for index, (where, image, label) in enumerate(rows):
            if label not in positions:
                raise DataError(f"{where}: label {label}, expected {_listed(positions)}", _ROW)
            labels[index] = positions[label]
            yield decode(BytesIO(image), where)


def _rows(file: Path, column_names: ColumnNames) -> Iterator[tuple[str, bytes, int | str | None]]:
    schema = _schema(file, column_names)
    with _reading(file), pq.ParquetFile(file) as reader:
        row = 0
        for batch in reader.iter_batches(1024, columns=[schema.image, schema.label]):
            images, labels = (
                batch.column(name).to_pylist() for name in (schema.image, schema.label)
            )
            for image, label in zip(images, labels, strict=True):
                where = f"{file}: row {row}"
                yield where, _image(image, where), label
                row += 1


def _image(value: dict[str, Any] | bytes | None, where: str) -> bytes:
    content: bytes | None = value["bytes"] if isinstance(value, dict) else value
    if not content:
        raise DataError(f"{where}: holds no image", _ROW)
    return content


def _classes(
    files: Sequence[Path], column_names: ColumnNames, names: Sequence[str] | None
) -> Classes:
    values = set().union(*(_values(file, _schema(file, column_names)) for file in files))
    words = {value for value in values if isinstance(value, str)}
    if words and words != values:
        where = f"{files[0].parent}/{files[0].stem}"
        raise DataError(f"{where} and others: some labels are integers, some words", _HINT)
    if names and not words:
        return dict(enumerate(names))
    # Below zero stands for "no label", in data sets that have such images.
    return {value: str(value) for value in sorted(v for v in values if v in words or v >= 0)}


def _values(file: Path, schema: ImageSchema) -> set[Any]:
    with _reading(file):
        labels = pq.read_table(file, columns=[schema.label]).column(0)
        return set(labels.unique().to_pylist()) - {None}


def _count(file: Path) -> int:
    with _reading(file), pq.ParquetFile(file) as reader:
        return int(reader.metadata.num_rows)


def _schema(file: Path, column_names: ColumnNames) -> ImageSchema:
    with _reading(file):
        return choose_columns(file, pq.read_schema(file), column_names)


def _listed(values: Sequence[int | str] | dict[int | str, int]) -> str:
    shown = [str(value) for value in values]
    return f"one of {', '.join(shown[:_SHOWN])}" + (", ..." if len(shown) > _SHOWN else "")


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{file}: not readable as Parquet: {error}", _HINT) from None
