"""Figures of others that fedbench ships: each says where it was read, or why it is what it is."""

from collections.abc import Iterator
from typing import Any

import yaml

from fedbench.config import CONFIGS

DEVICES = yaml.safe_load((CONFIGS / "reference" / "devices.yaml").read_text(encoding="utf-8"))


def figures(tree: Any) -> Iterator[dict[str, Any]]:
    for value in tree.values() if isinstance(tree, dict) else tree:
        if isinstance(value, dict) and "value" in value:
            yield value
        else:
            yield from figures(value)


def test_each_figure_has_a_source_or_is_marked_as_estimated() -> None:
    found = list(figures(DEVICES))
    assert len(found) > 30
    for figure in found:
        assert ("source" in figure) != ("estimated" in figure), figure
        assert str(figure.get("source") or figure.get("estimated")), figure
