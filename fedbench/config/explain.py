"""Says what is wrong with a configuration, in the words of the file."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, Tag
from pydantic_core import ErrorDetails

# Errors of our own, whose text says what was found as well.
_WHOLE = ("figure", "model_name")
# Where pydantic speaks of Python's types, and the file is YAML.
_EXPECTED = {
    "model_type": "expected keys and values",
    "dict_type": "expected keys and values",
    "tuple_type": "expected a list",
}


def nearest(name: str, known: Sequence[str]) -> str:
    """`; did you mean x?`, or nothing where no known name is like it."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def explain(
    item: ErrorDetails, model: type[BaseModel], path: Path | str, overrides: Sequence[str]
) -> str:
    """One of a validation's errors as a line: file or option, key, what was expected."""
    key = ".".join(map(str, _keys(item)))
    # The last one wins, as in the loader.
    settings = (setting for setting in reversed(overrides) if _sets(setting, key))
    source = next((f"--set {setting}" for setting in settings), str(path))
    return f"{source}: {key}: {_problem(item, model)}"


def _keys(item: ErrorDetails) -> list[int | str]:
    """Where the error is in the file: without the marks of a union's form or of a mapping's key."""
    keys = [part for part in item["loc"] if not str(part).startswith("[")]
    return [*keys, item["ctx"]["key"]] if item["type"] == "figure" else keys


def _sets(setting: str, key: str) -> bool:
    """Say whether a `--set` is of that key, of one above it or of one below it."""
    set_key, key = f"{setting.partition('=')[0]}.", f"{key}."
    return set_key.startswith(key) or key.startswith(set_key)


def _problem(item: ErrorDetails, model: type[BaseModel]) -> str:
    leaf = _keys(item)[-1]
    if item["type"] in _WHOLE:
        return item["msg"]
    if item["type"] == "extra_forbidden":
        known = list(_inner(model, item["loc"]).model_fields)
        return "no such key" + (nearest(str(leaf), known) or f"; known are {', '.join(known)}")
    if item["type"] == "missing":
        return "this key is missing"
    if item["type"] == "value_error":
        expected = str(item["ctx"]["error"])
    else:
        expected = _EXPECTED.get(item["type"], item["msg"])
    return f"{expected}, found {item['input']!r}"


def _inner(model: type[BaseModel], loc: Sequence[int | str]) -> type[BaseModel]:
    """Return the model that the last key of `loc` belongs to: Machine for `machines.0.count`."""
    forms: dict[str, type[BaseModel]] = {}
    for part in (part for part in loc[:-1] if isinstance(part, str)):
        if part in forms:
            model = forms[part]
        else:
            forms = dict(_models(model.model_fields[part].annotation))
            model = next(iter(forms.values()))
    return model


def _models(annotation: Any, tag: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the models in a field's type by a union's marks: Machine in `tuple[Machine, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield tag, annotation
    arguments = get_args(annotation)
    tag = next((argument.tag for argument in arguments if isinstance(argument, Tag)), tag)
    for inner in arguments:
        yield from _models(inner, tag)
