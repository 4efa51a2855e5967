"""Columns of a Parquet file that hold the images and the labels, told by type, not by name."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, Field, ValidationError

from fedbench.errors import DataError

IMAGES = "encoded images (binary, or a struct with bytes)"
LABELS = "labels (integers or strings)"


@dataclass(frozen=True)
class ColumnNames:
    """Names that the experiment gives: `data.image_column` and `data.label_column`, if any."""

    image: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class ImageSchema:
    """Names of the two columns, and of the classes where the file's metadata has them."""

    image: str
    label: str
    classes: tuple[str, ...] = ()


def choose_columns(file: Path, schema: pa.Schema, column_names: ColumnNames) -> ImageSchema:
    """Choose both columns; Hugging Face's metadata decides between several that could be meant.

    Raises:
        DataError: no column could be meant, or several, or the one that is named cannot be.
    """
    features = _features(schema)

    def choose(key: str, name: str | None, kind: _Kind) -> str:
        marked = [column for column, keys in features.items() if keys.type == kind.mark]
        fitting = [field.name for field in schema if kind.fits(field.type)]
        if name is not None:
            _require(file, schema, name, kind)
            return name
        chosen: list[str] = [column for column in fitting if column in marked] or fitting
        if len(chosen) != 1:
            raise _undecided(file, schema, chosen, key, kind)
        return chosen[0]

    image = choose("image_column", column_names.image, _IMAGE)
    label = choose("label_column", column_names.label, _LABEL)
    names = features[label].names if label in features else None
    return ImageSchema(image, label, (names or ()) if _is_integer(schema, label) else ())


class _Feature(BaseModel):
    type: str | None = Field(default=None, alias="_type")
    names: tuple[str, ...] | None = None


class _Info(BaseModel):
    features: dict[str, _Feature] = Field(default_factory=dict)


class _HuggingFace(BaseModel):
    info: _Info = Field(default_factory=_Info)


def _features(schema: pa.Schema) -> dict[str, _Feature]:
    """Return what Hugging Face's metadata says of the columns; nothing where it is another's."""
    metadata = (schema.metadata or {}).get(b"huggingface", b"{}")
    with suppress(ValidationError):
        return _HuggingFace.model_validate_json(metadata).info.features
    return {}


@dataclass(frozen=True)
class _Kind:
    what: str
    mark: str  # the feature's type in Hugging Face's metadata
    fits: Callable[[Any], bool]


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_images(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _holds_labels(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _holds_labels(kind.value_type)
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return bool(pa.types.is_integer(kind) or is_text)


def _is_integer(schema: pa.Schema, name: str) -> bool:
    return bool(pa.types.is_integer(schema.field(name).type))


_IMAGE = _Kind(IMAGES, "Image", _holds_images)
_LABEL = _Kind(LABELS, "ClassLabel", _holds_labels)


def _require(file: Path, schema: pa.Schema, name: str, kind: _Kind) -> None:
    if name not in schema.names:
        raise DataError(
            f"{file}: no column {name}; found {_listed(schema)}", f"expected {kind.what}"
        )
    if not kind.fits(schema.field(name).type):
        raise DataError(
            f"{file}: column {name}: expected {kind.what}, found {schema.field(name).type}",
            f"found in all: {_listed(schema)}",
        )


def _undecided(
    file: Path, schema: pa.Schema, chosen: list[str], key: str, kind: _Kind
) -> DataError:
    if not chosen:
        return DataError(
            f"{file}: no column with {kind.what}; found {_listed(schema)}",
            "one column must hold the images and one their labels",
        )
    return DataError(
        f"{file}: several columns with {kind.what}: {', '.join(chosen)}",
        f"say which is meant, for example data.{key}={chosen[0]}",
    )


def _listed(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema) or "none"
