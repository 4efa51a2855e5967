"""What the charts say in words, computed from what they draw.

The sentences are golden texts, in tests/golden/page/charts.txt.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import golden
import pytest

from fedbench.host.report.page.chart import Chart, colours, times
from fedbench.host.report.page.devices import cpu, energy, epochs, memory, traffic
from fedbench.host.report.page.global_model import confusion, curves, paper_runs
from fedbench.host.report.page.render import render
from fedbench.host.report.page.story import Story

CHARTS = golden.GOLDEN / "page" / "charts.txt"


def check_words(title: str, *charts: Chart) -> None:
    """Fail the test unless the sentences beneath the charts are the golden ones."""
    golden.check_section(CHARTS, title, "\n".join(chart.words for chart in charts))


def of_paper(story: Story, **changes: Any) -> Story:
    """As if it had been a run of the paper's: 5 rounds of 10 epochs on CIFAR-10."""
    data = {"name": "cifar10", "partition": "replicated", "train_samples": None}
    asked = {"model": "mobilenet_v2", "rounds": 5, "local_epochs": 10, "data": data}
    return replace(story, experiment={**story.experiment, **asked, **changes})


def test_the_curves_say_what_was_reached(story: Story) -> None:
    accuracy, loss = curves([story])
    check_words("curves of one run", accuracy, loss)
    assert [trace["y"] for trace in accuracy.traces] == [[0.25, 0.5]]


def test_the_published_run_is_beside_one_of_the_same_protocol(story: Story) -> None:
    accuracy, loss = curves([of_paper(story)])
    assert accuracy.traces[1]["y"] == [0.1, 0.6991, 0.7733, 0.7909, 0.7949]
    assert loss.traces[1]["name"] == "Negi & Chinara, legacy-pair, published run"
    check_words("curves of a run of the paper's protocol", accuracy, loss)


def test_where_only_a_table_has_it_its_number_is_a_line(story: Story) -> None:
    accuracy, _ = curves([of_paper(story, local_epochs=5)])
    (line,) = accuracy.traces[1:]
    assert (line["x"], line["y"], line["mode"]) == ([1, 5], [0.7877, 0.7877], "lines")


def test_fewer_images_than_the_paper_had_are_told(story: Story) -> None:
    data = {"name": "cifar10", "train_samples": 5000}
    check_words("curves with fewer images than the paper's", *curves([of_paper(story, data=data)]))


@pytest.mark.parametrize("change", [{"rounds": 6}, {"model": "mobilenet_v1", "local_epochs": 7}])
def test_of_another_protocol_the_paper_has_nothing(story: Story, change: dict[str, Any]) -> None:
    assert paper_runs(story) == [], "of the digits"
    assert paper_runs(of_paper(story, **change)) == []


def test_of_several_runs_the_best_and_the_worst_are_told(story: Story) -> None:
    rounds = story.summary.rounds[:1]
    other = replace(story, summary=story.summary.model_copy(update={"run": "b", "rounds": rounds}))
    accuracy, loss = curves([other, story])
    check_words("curves of two runs", accuracy, loss)


def test_an_epoch_is_held_against_the_real_device(story: Story) -> None:
    chart = epochs(story)
    bars, targets = chart.traces
    assert dict(zip(bars["y"], bars["x"], strict=True)) == {
        "legacy-pc": 4.75, "laptop": 1.9375, "workstation": 0.75,
    }  # fmt: skip
    assert dict(zip(targets["y"], targets["x"], strict=True))["laptop"] == 1.875
    assert chart.layout["xaxis"]["title"]["text"] == (
        "emulated seconds per local epoch: median, lowest to highest"
    )
    check_words("local epochs", chart)


def test_seconds_of_one_program_are_not_called_emulated(old_story: Story) -> None:
    summary = old_story.summary.model_copy(update={"emulates": False})
    chart = epochs(replace(old_story, summary=summary))
    assert chart.layout["xaxis"]["title"]["text"] == (
        "wall seconds per local epoch: median, lowest to highest"
    )
    check_words("local epochs without emulation", chart)


def test_cpus_are_held_against_the_plan(story: Story) -> None:
    had, planned, throttled = cpu(story).traces
    assert (had["x"], planned["x"], throttled["x"]) == ([0.25] * 3, [0.5] * 3, [12.5] * 3)
    check_words("CPUs", cpu(story))


def test_memory_is_a_part_of_the_limit(story: Story) -> None:
    chart = memory(story)
    assert chart.traces[0]["text"][-1].strip() == "690 of 1,024 MiB"
    check_words("memory", chart)


def test_without_limits_memory_is_what_it_is(old_story: Story) -> None:
    check_words("memory without limits", memory(old_story))


def test_bytes_are_added_up(story: Story) -> None:
    check_words("bytes", traffic(story))


def test_energy_is_busy_and_idle_one_after_the_other(story: Story) -> None:
    """legacy-pc answered in one round of two."""
    busy, idle = energy(story).traces
    assert dict(zip(busy["y"], busy["x"], strict=True)) == {
        "legacy-pc": 0.4, "laptop": 0.8, "workstation": 0.8,
    }  # fmt: skip
    assert idle["x"] == [0.1, 0.2, 0.2]
    check_words("energy", energy(story))


def test_the_commonest_mistake_is_told(story: Story) -> None:
    check_words("confusion", confusion(story))


def test_an_interrupted_run_has_a_sentence_in_the_place_of_an_empty_matrix(story: Story) -> None:
    rounds = [r.model_copy(update={"confusion": None}) for r in story.summary.rounds]
    changes = {"status": "interrupted", "rounds": rounds}
    ended = replace(story, summary=story.summary.model_copy(update=changes))
    assert confusion(ended).traces == ()
    check_words("confusion of an interrupted run", confusion(ended))
    drawn, missing = '<div class="chart" id="confusion"', '<p class="missing" id="confusion">'
    assert drawn in render([story])
    page = render([ended])
    assert drawn not in page
    assert missing in page


def test_equals_are_not_said_to_differ() -> None:
    words = "\n".join(times(factor, "b") for factor in (1.04, 2.0))
    golden.check_section(CHARTS, "1.04 and 2 times as long", words)


def test_every_golden_text_is_of_a_test() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [title for title in golden.sections(CHARTS) if f'"{title}"' not in source] == []


def test_a_client_has_one_colour_in_all_charts_and_runs(story: Story) -> None:
    """Those of Grafana, which sorts the clients; `aardvark` is of another run of the page."""
    hues = {"laptop": "@green", "legacy-pc": "@yellow", "workstation": "@blue"}
    for chart in (epochs(story), memory(story), cpu(story)):
        bars = [trace for trace in chart.traces if trace["type"] == "bar"]
        assert bars
        for trace in bars:
            assert dict(zip(trace["y"], trace["marker"]["color"], strict=True)) == hues
    assert {t["name"]: t["marker"]["color"] for t in traffic(story).traces} == hues
    beside = replace(story, beside=["aardvark", *hues])
    assert {t["name"]: t["marker"]["color"] for t in traffic(beside).traces} == {
        "laptop": "@yellow", "legacy-pc": "@blue", "workstation": "@orange",
    }  # fmt: skip


def test_busy_and_idle_have_the_colours_of_training_and_waiting(story: Story) -> None:
    assert [trace["marker"]["color"] for trace in energy(story).traces] == ["@green", "@grey"]


def test_a_run_has_one_colour_in_both_curves(story: Story) -> None:
    """Even where one of them has nothing of another run."""
    unknown = [r.model_copy(update={"server_accuracy": None}) for r in story.summary.rounds]
    changes = {"run": "2026", "rounds": unknown}
    diverged = replace(story, summary=story.summary.model_copy(update=changes))
    accuracy, loss = curves([story, diverged])
    drawn = [{t["name"]: t["line"]["color"] for t in chart.traces} for chart in (accuracy, loss)]
    assert drawn[0] == {story.summary.run: drawn[1][story.summary.run]}
    assert len(set(drawn[1].values())) == 2


def test_colours_go_by_name_and_repeat_after_eight() -> None:
    names = [f"c{number}" for number in range(9)]
    painted = colours(reversed(names))
    assert list(painted) == names
    assert painted["c0"] == painted["c8"]
    assert len(set(painted.values())) == 8
