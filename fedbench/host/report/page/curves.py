"""The global model round by round: accuracy and loss, beside the paper's where it has any."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from fedbench.host.report.page.chart import Chart, Trace, axis, colours, rounds_axis
from fedbench.host.report.page.story import Story
from fedbench.host.report.tables import paper
from fedbench.host.report.tables.paper import Field, PaperRun
from fedbench.records import RoundRecord

_PAPER = "Negi & Chinara"


@dataclass(frozen=True)
class CurveMetric:
    """A figure of the global model; `best` of several is what one wishes for."""

    field: Field
    name: str
    of: Callable[[RoundRecord], float | None]
    published: Callable[[PaperRun], Sequence[float]]
    best: Callable[[Iterable[float]], float]


ACCURACY = CurveMetric(
    "server_accuracy", "accuracy", lambda r: r.server_accuracy, lambda s: s.accuracies, max
)
LOSS = CurveMetric("server_loss", "loss", lambda r: r.server_loss, lambda s: s.losses, min)


def curves(stories: Sequence[Story]) -> list[Chart]:
    """Accuracy and loss after each round, of all the runs in one chart each."""
    return [_chart(metric, stories) for metric in (ACCURACY, LOSS)]


def studies(story: Story) -> list[PaperRun]:
    """The paper's runs of the same model, data, rounds and local epochs."""
    asked = story.experiment
    if asked["data"]["name"] != "cifar10":
        return []
    return [
        original
        for original in (*paper.published(), *paper.table2(), *paper.table3())
        if (original.model, original.rounds, original.local_epochs)
        == (asked["model"], asked["rounds"], asked["local_epochs"])
    ]


def _chart(metric: CurveMetric, stories: Sequence[Story]) -> Chart:
    title = f"Global {metric.name} per round"
    known = {s.summary.run: points for s in stories if (points := _points(metric, s))}
    if not known:
        return Chart(metric.name, title, f"No round has the {metric.name} of the global model.")
    names = list(known)
    traces = [_line(run, known[run], colours(names)[run]) for run in names]
    last = max(number for points in known.values() for number in points)
    theirs = _theirs(metric, [original for story in stories for original in studies(story)])
    layout = {
        "xaxis": rounds_axis(last, range=[0.7, last + 0.3]),
        "yaxis": axis(
            f"{metric.name} on the test images",
            **({"range": [0, 1.02]} if metric is ACCURACY else {"rangemode": "tozero"}),
        ),
        "hovermode": "x unified",
        "showlegend": len(traces) + len(theirs) > 1,
    }
    words = " ".join([*_words(metric, known), *_beside(metric, stories)])
    return Chart(metric.name, title, words, [*traces, *theirs], layout)


def _points(metric: CurveMetric, story: Story) -> dict[int, float]:
    points = {record.round: metric.of(record) for record in story.summary.rounds}
    return {number: value for number, value in points.items() if value is not None}


def _line(name: str, points: dict[int, float], colour: str, dash: str = "solid") -> Trace:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": list(points),
        "y": list(points.values()),
        "line": {"color": colour, "width": 2, "dash": dash},
        "marker": {"size": 7},
        "hovertemplate": "%{y:.4f}",
    }


def _theirs(metric: CurveMetric, found: Sequence[PaperRun]) -> list[Trace]:
    """The published curves, and the final number of each as a line."""
    traces = []
    for original in dict.fromkeys(found):
        name = f"{_PAPER}, {original.profile}"
        if curve := metric.published(original):
            points = dict(enumerate(curve, 1))
            traces.append(_line(f"{name}, published run", points, "@muted", "dot"))
        elif final := _final(metric, original):
            points = {1: final, original.rounds: final}
            line = _line(f"{name}, after {original.rounds} rounds", points, "@muted", "dash")
            traces.append(line | {"mode": "lines"})
    return traces


def _final(metric: CurveMetric, original: PaperRun) -> float | None:
    return next((f.paper for f in original.figures if f.field == metric.field), None)


def _words(metric: CurveMetric, known: dict[str, dict[int, float]]) -> list[str]:
    finals = {run: list(points.items())[-1] for run, points in known.items()}
    if len(finals) > 1:
        ranked = sorted(finals, key=lambda run: finals[run][1], reverse=metric is ACCURACY)
        first, last = ranked[0], ranked[-1]
        return [
            f"After its last round {first} has the best {metric.name}, {finals[first][1]:.4f}; "
            f"{last} has the worst, {finals[last][1]:.4f}."
        ]
    (points,) = known.values()
    ((number, final),) = finals.values()
    best = metric.best(points.values())
    where = next(number for number, value in points.items() if value == best)
    tail = ", its best" if best == final else f"; its best, {best:.4f}, came after round {where}"
    return [f"The global model has {metric.name} {final:.4f} after round {number}{tail}."]


def _beside(metric: CurveMetric, stories: Sequence[Story]) -> list[str]:
    """What the paper has, and what makes ours another run than theirs."""
    found = dict.fromkeys(original for story in stories for original in studies(story))
    finals = sorted(
        {final for original in found if (final := _final(metric, original)) is not None}
    )
    if not finals:
        return []
    words = [f"{_PAPER} report {' and '.join(f'{final:.4f}' for final in finals)} after the last."]
    for story in stories:
        images = story.experiment["data"]["train_samples"]
        if studies(story) and images:
            words.append(f"Here {images:,} training images take the place of their 50,000.")
            break
    return words
