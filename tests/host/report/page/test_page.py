"""The page as a browser draws it, without a network."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from fedbench.host.report.page.render import render
from fedbench.host.report.page.story import Story

CHARTS = {"accuracy", "loss", "timeline", "epochs", "memory", "cpu", "bytes", "energy", "confusion"}
LAYERS = {"barlayer": "bar", "scatterlayer": "scatter", "heatmaplayer": "heatmap"}
VOID = ("meta", "link", "br", "img", "input", "hr")
Marks = dict[str, Counter[str]]


class Page(HTMLParser):
    """The marks that were drawn of each chart, by the kind of their trace; what is lacking."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.marks: Marks = {}
        self.lacking: set[str] = set()
        self.addresses: list[str] = []
        self.charts: list[dict[str, Any]] = []
        self._open: list[tuple[str, str, str]] = []  # tag, chart and layer
        self._script = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        classes = values.get("class", "").split()
        _, chart, layer = self._open[-1] if self._open else ("", "", "")
        if "chart" in classes:
            chart, layer = values["id"], ""
            self.marks[chart] = Counter()
        if "missing" in classes and "id" in values:
            self.lacking.add(values["id"])
        layer = next((LAYERS[name] for name in classes if name in LAYERS), layer)
        # A bar is a group with a path, a point is a path, a heatmap is an image.
        drawn = {"bar": tag == "g", "scatter": tag == "path", "heatmap": tag == "image"}
        if layer and drawn[layer] and ("point" in classes or tag == "image"):
            self.marks[chart][layer] += 1
        self.addresses += [values[name] for name in ("src", "href", "xlink:href") if name in values]
        if tag not in VOID:
            self._open.append((tag, chart, layer))
        self._script = values.get("id", "") if tag == "script" else ""

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag
        self._script = ""

    def handle_data(self, text: str) -> None:
        if self._script == "charts":
            self.charts = json.loads(text)


@pytest.fixture
def browse(chromium: str, tmp_path: Path) -> Callable[[str], Page]:
    """Opens a page where no name can be looked up; what the console says is an error."""

    def opened(text: str) -> Page:
        file = tmp_path / "report.html"
        file.write_text(text, encoding="utf-8")
        done = subprocess.run(
            [
                chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom",
                "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr",
                "--virtual-time-budget=10000", f"--user-data-dir={tmp_path / 'browser'}",
                file.as_uri(),
            ],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
        return Page(done.stdout)

    return opened


def expected(page: Page) -> Marks:
    """What the data of the page has of each chart."""
    return {
        chart["id"]: sum((marks(trace) for trace in chart["traces"]), Counter[str]())
        for chart in page.charts
    }


def marks(trace: dict[str, Any]) -> Counter[str]:
    if trace["type"] == "heatmap":
        return Counter(heatmap=1)
    return Counter({trace["type"]: len(trace["x"]) if trace.get("mode") != "lines" else 0})


def test_every_chart_is_drawn(story: Story, browse: Callable[[str], Page]) -> None:
    page = browse(render([story]))
    assert page.marks == expected(page)
    assert page.marks == {
        "accuracy": Counter(scatter=2),
        "loss": Counter(scatter=2),
        # Five devices' rounds of 7 activities each, and the failure of one.
        "timeline": Counter(bar=5 * 7, scatter=1),
        "epochs": Counter(bar=3, scatter=3),
        "memory": Counter(bar=3),
        "cpu": Counter(bar=6, scatter=3),
        "bytes": Counter(bar=10),
        "energy": Counter(bar=6),
        "confusion": Counter(heatmap=1),
    }
    assert page.lacking == set()


def test_a_run_of_an_older_version_says_what_it_lacks(
    old_story: Story, browse: Callable[[str], Page]
) -> None:
    page = browse(render([old_story]))
    assert page.lacking == {"cpu", "energy", "confusion"}
    assert page.marks == expected(page)
    assert page.marks.keys() == CHARTS - page.lacking
    assert all(page.marks.values())


def test_runs_side_by_side_share_their_curves(story: Story, browse: Callable[[str], Page]) -> None:
    other = replace(story, summary=story.summary.model_copy(update={"run": "other"}))
    page = browse(render([story, other]))
    assert page.marks == expected(page)
    assert page.marks["accuracy"] == Counter(scatter=4)
    of_one = CHARTS - {"accuracy", "loss"}
    assert page.marks.keys() == CHARTS | {f"{chart}-2" for chart in of_one}


def test_nothing_is_asked_of_a_network(story: Story) -> None:
    text = render([story])
    assert all(address.startswith(("data:", "#")) for address in Page(text).addresses)
    assert "default-src 'none'" in text, "the browser itself refuses all else"
    assert not re.search(r"@import|url\(", text.split("</style>")[0])


def test_the_charts_are_what_plotly_knows(story: Story) -> None:
    for chart in Page(render([story])).charts:
        plain = json.loads(re.sub(r'"@[\w-]+"', '"#000"', json.dumps(chart)))
        go.Figure({"data": plain["traces"], "layout": plain["layout"]})


def test_what_a_run_says_cannot_leave_its_place(story: Story) -> None:
    evil = story.summary.rounds[1].clients[1].model_copy(update={"error": "</script><b id=x>"})
    record = story.summary.rounds[1].model_copy(update={"clients": [evil]})
    summary = story.summary.model_copy(update={"rounds": [record], "run": "</script><b id=x>"})
    text = render([replace(story, summary=summary)])
    assert "<b id=x>" not in text
    assert "&lt;b id=x&gt;" in text


def test_a_run_without_rounds_has_a_page(old_story: Story) -> None:
    summary = old_story.summary.model_copy(update={"rounds": [], "error": "nobody came"})
    page = Page(render([replace(old_story, summary=summary)]))
    assert page.lacking == CHARTS


def test_the_tables_of_a_run_in_one_program_have_wall_seconds_alone(old_story: Story) -> None:
    summary = old_story.summary.model_copy(update={"emulates": False})
    columns = ("emulated s", "target emulated s", "rounds held", "kJ", "not held")
    headers = [f">{column}</th>" for column in columns]
    assert any(header in render([old_story]) for header in headers)
    page = render([replace(old_story, summary=summary)])
    assert not [header for header in headers if header in page]
    assert ">wall s</th>" in page


@pytest.mark.parametrize(
    ("partition", "text"),
    [("iid", "(iid)"), ({"name": "dirichlet", "alpha": 0.3}, "(dirichlet, alpha 0.3)")],
)
def test_the_partition_is_told_with_its_keys(story: Story, partition: Any, text: str) -> None:
    data = {**story.experiment["data"], "partition": partition}
    page = render([replace(story, experiment={**story.experiment, "data": data})])
    assert f"mobilenet_v2 on digits {text};" in page


def test_what_the_host_drew_is_apart_from_the_devices(story: Story) -> None:
    assert "own energy" not in render([story])
    page = render([replace(story, measured=["the host really drew 4 kJ"])])
    assert "<li>the host really drew 4 kJ</li>" in page
    assert "<b>2.50 kJ</b><span>drawn by all devices</span><small>modelled</small>" in page


def test_each_colour_of_the_charts_is_one_of_the_page_on_either_ground(story: Story) -> None:
    page = render([story])
    style = page.split("<style>")[1].split("</style>")[0]
    named = set(re.findall(r'"@([\w-]+)"', page.split('id="charts">')[1]))
    assert {"green", "yellow", "blue", "purple", "grey", "red"} <= named
    for name in named:
        assert len(re.findall(rf"--{name}: #[0-9a-f]{{6}};", style)) >= 2
