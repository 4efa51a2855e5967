"""The helper of the golden files notices what differs, and rewrites only when asked to."""

from __future__ import annotations

from pathlib import Path

import golden
import pytest


def test_another_text_fails_and_shows_the_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UPDATE_GOLDEN", raising=False)
    file = tmp_path / "golden.txt"
    file.write_text("a\nb\n")
    golden.check(file, "a\nb\n")
    with pytest.raises(pytest.fail.Exception, match=r"UPDATE_GOLDEN=1(?s:.*)-b\n\+c"):
        golden.check(file, "a\nc\n")
    assert file.read_text() == "a\nb\n"


def test_a_section_is_compared_and_rewritten_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "new" / "golden.txt"
    monkeypatch.setenv("UPDATE_GOLDEN", "1")
    golden.check_section(file, "two", "second")
    golden.check_section(file, "one", "first\nline\n")
    monkeypatch.delenv("UPDATE_GOLDEN")
    assert file.read_text() == "## one\nfirst\nline\n\n## two\nsecond\n"
    golden.check_section(file, "two", "second\n")
    for title, text in (("two", "first"), ("three", "third")):
        with pytest.raises(pytest.fail.Exception, match=f"{title} differs"):
            golden.check_section(file, title, text)
