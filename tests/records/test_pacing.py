from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from fedbench.records import pacing
from fedbench.records.pacing import Pacing

PACE = Pacing(wall=10, training=8, cpu=4, late=0)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert pacing.read(tmp_path) == {}
    pacing.write(tmp_path, {"laptop": PACE})
    pacing.write(tmp_path, {"laptop": PACE, "legacy-pc": PACE})
    assert pacing.read(tmp_path) == {"laptop": PACE, "legacy-pc": PACE}
    assert [path.name for path in tmp_path.iterdir()] == [pacing.FILE]


@pytest.mark.parametrize("text", ["", "[]", '{"laptop": {"wall": -1}}', '{"laptop"'])
def test_what_is_no_such_file_says_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / pacing.FILE).write_text(text)
    assert pacing.read(tmp_path) == {}


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "a while"])
@pytest.mark.parametrize("field", ["wall", "training", "cpu", "late"])
def test_no_client_can_say_what_is_no_duration(field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        Pacing.model_validate(PACE.model_dump() | {field: value})
