"""Says what is wrong with a configuration, in the words of the file."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, Tag
from pydantic_core import ErrorDetails

# Types of our errors: their text says all, also the value that was given.
_COMPLETE = ("figure", "model_name")
_MOST_SHOWN = 200
# Pydantic speaks of Python's types, but the file is YAML.
_EXPECTED = {
    "model_type": "expected keys and values",
    "dict_type": "expected keys and values",
    "tuple_type": "expected a list",
    "string_type": "expected text",
    "int_type": "expected a whole number",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
}


def nearest(name: str, known: Sequence[str]) -> str:
    """Write `; did you mean x?`, or an empty text where no known name is like it."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def shown(value: object) -> str:
    """Write a value that was found, or how it begins."""
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def explain(
    item: ErrorDetails, model: type[BaseModel], path: Path | str, overrides: Sequence[str]
) -> str:
    """Write an error of a validation as a line: file or option, key, what was expected."""
    key = ".".join(map(str, _keys(item)))
    # The last one wins, as in the loader.
    settings = (setting for setting in reversed(overrides) if _sets(setting, key))
    source = next((f"--set {setting}" for setting in settings), str(path))
    return f"{source}: {key}: {_problem(item, model)}"


def _keys(item: ErrorDetails) -> list[int | str]:
    """Return the keys to the error as in the file, without marks of unions or mappings' keys."""
    figure = [item["ctx"]["key"]] if item["type"] == "figure" else []
    *way, last = [*item["loc"], *figure] or [""]
    keys = [key for key in way if not str(key).startswith("[")]
    # A key of the file may look like a mark.
    told = item["type"] == "extra_forbidden" or not str(last).startswith("[")
    return [*keys, last] if told else keys


def _sets(setting: str, key: str) -> bool:
    """Return whether a `--set` is of that key, of a key above it or of a key below it."""
    set_key, key = f"{setting.partition('=')[0]}.", f"{key}."
    return set_key.startswith(key) or key.startswith(set_key)


def _problem(item: ErrorDetails, model: type[BaseModel]) -> str:
    leaf = _keys(item)[-1]
    if item["type"] in _COMPLETE:
        return item["msg"]
    if item["type"] == "extra_forbidden":
        known = list(_inner(model, item["loc"]).model_fields)
        return "no such key" + (nearest(str(leaf), known) or f"; known are {', '.join(known)}")
    if item["type"] == "missing":
        return "this key is missing"
    if item["type"] == "value_error":
        expected = str(item["ctx"]["error"])
    else:
        expected = _EXPECTED.get(item["type"]) or _in_our_words(item["msg"])
    return f"{expected}, found {shown(item['input'])}"


def _in_our_words(message: str) -> str:
    """Write pydantic's `Input should be …` as our messages begin."""
    for bound in ("greater", "less"):
        message = message.replace(f"Input should be {bound}", f"expected a number {bound}")
    return message.replace("Input should be ", "expected ")


def _inner(model: type[BaseModel], loc: Sequence[int | str]) -> type[BaseModel]:
    """Return the model that the last key of `loc` belongs to: Machine for `machines.0.count`."""
    forms: dict[str, type[BaseModel]] = {}
    for key in (key for key in loc[:-1] if isinstance(key, str)):
        if key in forms:
            model = forms[key]
        else:
            forms = dict(_models(model.model_fields[key].annotation))
            model = next(iter(forms.values()))
    return model


def _models(annotation: Any, tag: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """List models in a field's type by their marks in a union: Machine in `tuple[Machine, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield tag, annotation
    arguments = get_args(annotation)
    tag = next((argument.tag for argument in arguments if isinstance(argument, Tag)), tag)
    for inner in arguments:
        yield from _models(inner, tag)
