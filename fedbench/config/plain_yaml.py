"""YAML as people write it by hand: short, not deep, each value in its place.

What a file can make of its reader is bounded: an alias stands for what it names, so a few lines of
them are billions of values ("billion laughs").
"""

from __future__ import annotations

from typing import Any, NoReturn

import yaml
from yaml.composer import ComposerError

MOST_BYTES = 128 * 2**10
"""A longer text is no configuration; one of this length is parsed in seconds."""
MOST_DEPTH = 32
_MOST_BITS = 10_000  # Python writes no number of more than 14,000 in decimal
# What SafeLoader's constructors raise of scalars that are not of their tag: `!!bool maybe`.
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


class NotYamlError(ValueError):
    """A text is not such YAML; `line` counts from 1, and is None where nobody knows it."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.line = line


class _Loader(yaml.SafeLoader):
    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            self._refuse(event, "aliases are not understood")
        if self._depth == MOST_DEPTH:
            self._refuse(event, f"it is nested more than {MOST_DEPTH} deep")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_yaml_int(self, node: Any) -> int:
        number: int = super().construct_yaml_int(node)
        if number.bit_length() > _MOST_BITS:
            raise ValueError("a number of thousands of digits")
        return number

    def _refuse(self, event: Any, problem: str) -> NoReturn:
        raise ComposerError(None, None, problem, event.start_mark)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def parse(text: str) -> Any:
    """Return the value that a text is.

    Raises:
        NotYamlError: it is none, or more than a configuration may be.
    """
    if len(text) > MOST_BYTES:
        raise NotYamlError(f"it has more than {MOST_BYTES} characters")
    try:
        return yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise NotYamlError(error.problem or str(error), line) from None
    except yaml.YAMLError as error:
        raise NotYamlError(str(error).replace("\n", " ")) from None
    except _UNREADABLE as error:
        raise NotYamlError(f"a value is not of its type: {error}") from None
