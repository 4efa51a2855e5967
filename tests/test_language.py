"""Docstrings say what a thing is or does: none begins amid a thought, as "Those of a run" does.

Ruff (D401) wants functions in the imperative. It knows only verbs, so this test knows the rest.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import fedbench

PACKAGE = Path(fedbench.__file__).parent
ROOT = PACKAGE.parent
FRAGMENTS = {
    "and", "as", "but", "else", "itself", "none", "nothing", "of", "or", "such", "that", "those",
    "whether",
}  # fmt: skip


def docstrings(source: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the first line of each docstring of a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield getattr(node, "name", "module"), docstring.splitlines()[0]


def fragments(source: str) -> list[str]:
    """List the docstrings that begin with a word that continues another thought."""
    return [
        f"{name}: {line}"
        for name, line in docstrings(source)
        if line.split()[0].strip(".,:;").lower() in FRAGMENTS
    ]


def modules() -> list[str]:
    paths = [*PACKAGE.rglob("*.py"), *(ROOT / "grafana").rglob("*.py")]
    return sorted(str(path.relative_to(ROOT)) for path in paths)


@pytest.mark.parametrize("module", modules())
def test_docstrings_begin_with_what_they_say(module: str) -> None:
    assert fragments((ROOT / module).read_text(encoding="utf-8")) == []


def test_a_fragment_is_seen() -> None:
    """Show that the tests above can fail."""
    source = '"""Whether it is so."""\ndef f():\n    """Return what is so."""\n'
    assert fragments(source) == ["module: Whether it is so."]
    assert fragments('class A:\n    """Those, of a run."""\n') == ["A: Those, of a run."]
