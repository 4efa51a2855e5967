from __future__ import annotations

from dataclasses import replace

import pytest

from fedbench.host.report.page.story import Story
from fedbench.host.report.page.timeline import Span, failures, spans, timeline


def test_a_client_is_laid_out_backwards_from_its_replies(story: Story) -> None:
    """The server has legacy-pc's model 20.5 s and its evaluation 22.25 s after the round began."""
    found = [s for s in spans(story.summary.rounds[0], story.events) if s.client == "legacy-pc"]
    assert [(s.activity, s.start, s.seconds) for s in found] == [
        ("receive", 0.0, 0.25),
        ("train", 1.25, 19.0),
        ("send", 20.25, 0.25),
        ("wait for the others", 20.5, pytest.approx(0.625)),
        ("receive", 21.125, pytest.approx(0.125)),
        ("evaluate", 21.25, 1.0),
        ("wait for the others", 22.25, 0.25),
    ]


def test_what_was_not_measured_has_no_span(old_story: Story) -> None:
    found = [s for s in spans(old_story.summary.rounds[0], old_story.events) if s.round == 1]
    assert {s.activity for s in found} == {"train", "wait for the others", "evaluate"}
    assert Span(1, "workstation", "train", 0.5, 3.0) in found


def test_a_client_that_failed_has_the_moment_of_it_only(story: Story) -> None:
    record = story.summary.rounds[1]
    assert {span.client for span in spans(record, story.events)} == {"laptop", "workstation"}
    assert failures(record, story.events) == [("legacy-pc", 4.5)]


def test_events_of_an_attempt_before_do_not_count(story: Story) -> None:
    """A run that was interrupted repeats its last round."""
    before = [
        {
            "time": "2026-01-02T03:04:07.000+00:00",
            "event": "trained",
            "round": 1,
            "client": "laptop",
        }
    ]
    record = story.summary.rounds[0]
    assert spans(record, [*before, *story.events]) == spans(record, story.events)


def test_the_slowest_and_what_the_fastest_waits_are_in_words(story: Story) -> None:
    words = timeline(story).words
    # legacy-pc works 20 s; workstation 3.25 s in both rounds.
    assert words.startswith(
        "legacy-pc holds the rounds back: it works for 20 wall s of the median round, "
        "6.2 times as long as workstation, which waits for "
    )


def test_without_training_there_is_nobody_to_wait_for(story: Story) -> None:
    idle = {"epoch_seconds": [], "evaluate_seconds": None, "error": None}
    rounds = [
        record.model_copy(update={"clients": [c.model_copy(update=idle) for c in record.clients]})
        for record in story.summary.rounds
    ]
    noop = replace(story, summary=story.summary.model_copy(update={"rounds": rounds}))
    assert timeline(noop).words == "Nobody trains: these rounds are of messages alone."


def test_nobody_holds_equals_back(story: Story) -> None:
    alike = {"epoch_seconds": [4.0], "evaluate_seconds": 1.0, "error": None}
    rounds = [
        record.model_copy(update={"clients": [c.model_copy(update=alike) for c in record.clients]})
        for record in story.summary.rounds
    ]
    even = replace(story, summary=story.summary.model_copy(update={"rounds": rounds}))
    assert timeline(even).words.startswith(
        "No device holds the rounds back: each works for 5 wall s of the median."
    )


def test_the_menu_goes_from_one_round_to_the_next(story: Story) -> None:
    (menu,) = timeline(story).layout["updatemenus"]
    ranges = {button["label"]: button["args"][0]["xaxis.range"] for button in menu["buttons"]}
    assert ranges == {"all rounds": [0, 31.5], "round 1": [0, 22.5], "round 2": [22.5, 31.5]}


def test_an_activity_has_the_colour_of_its_phase(story: Story) -> None:
    assert {trace["name"]: trace["marker"]["color"] for trace in timeline(story).traces} == {
        "receive": "@blue", "train": "@green", "send": "@purple",
        "wait for the others": "@grey", "evaluate": "@yellow", "failed": "@red",
    }  # fmt: skip
