"""What the report shows of two recorded runs could be so.

One is of three emulated devices, dilated by 2.56; the other, in one program, died without a word
and went on an hour later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import golden
import plausible
import pytest

from fedbench.host.report.page.story import Story
from fedbench.records.runs import Run

RECORDED = golden.GOLDEN / "recorded"
EMULATED, WENT_ON = (RECORDED / f"20261127-{name}" for name in ("091029-digits", "091708-negi2023"))


@pytest.fixture
def story() -> Story:
    return Story.of(Run(EMULATED))


@pytest.mark.parametrize("folder", [EMULATED, WENT_ON], ids=lambda folder: folder.name)
def test_all_that_is_shown_of_a_recorded_run_is_plausible(folder: Path) -> None:
    assert plausible.of_report(Story.of(Run(folder))) == []


def test_what_is_checked_is_there(story: Story) -> None:
    """Else the test above could not fail."""
    assert story.facts.watts.keys() == story.emulation.targets.keys() == story.limits.keys()
    assert len(story.summary.rounds) == 6
    assert all(client.energy_joules for rounds in story.clients.values() for client in rounds)


def changed(story: Story, **fields: Any) -> Story:
    """The same with another first round of the first client."""
    first, *others = story.summary.rounds
    client, *rest = first.clients
    record = first.model_copy(update={"clients": [client.model_copy(update=fields), *rest]})
    return replace(story, summary=story.summary.model_copy(update={"rounds": [record, *others]}))


def total(story: Story, seconds: float) -> Story:
    return replace(story, summary=story.summary.model_copy(update={"total_seconds": seconds}))


@pytest.mark.parametrize(
    ("change", "doubt"),
    [
        (lambda s: changed(s, energy_busy_joules=120_000.0), "watts"),
        (lambda s: changed(s, epoch_seconds=[0.1] * 3), "samples/s"),
        (lambda s: changed(s, local_accuracy=53.6), "local accuracy"),
        (lambda s: changed(s, evaluate_seconds=30.0), "busy seconds"),
        (lambda s: changed(s, peak_memory_bytes=2**40), "% of memory"),
        (lambda s: total(s, 3400.0), "wall time"),
        (lambda s: total(s, 34.0), "wall time"),
    ],
)
def test_what_cannot_be_is_doubted(
    story: Story, change: Callable[[Story], Story], doubt: str
) -> None:
    assert any(doubt in line for line in plausible.of_report(change(story)))


def test_parts_that_do_not_add_up_are_doubted() -> None:
    assert list(plausible.same("a", 1.0, 1.004, 0.005)) == []
    assert list(plausible.same("a", 1.0, 1.1, 0.005)) != []
    assert list(plausible.same("a", None, 1.0, 0.005)) != []
    assert plausible.cells((("x",), [("12.5 %",), ("-",), ("1,024",)]), "x") == [12.5, None, 1024]
