"""The global model: accuracy and loss round by round, beside the paper's, and its confusions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from fedbench.host.palette import BLUE
from fedbench.host.report.page.chart import Chart, Trace, axis, colours, paint, rounds_axis
from fedbench.host.report.page.story import Story
from fedbench.host.report.tables import paper
from fedbench.host.report.tables.paper import PaperField, PaperRun
from fedbench.records import RoundRecord

_PAPER = "Negi & Chinara"
_LEGIBLE = 20  # classes whose counts have room in their cells
_LARGEST = 520  # pixels


@dataclass(frozen=True)
class ModelCurve:
    """What is drawn of the global model round by round; `best` picks the best of several values."""

    field: PaperField
    name: str
    of: Callable[[RoundRecord], float | None]
    published: Callable[[PaperRun], Sequence[float]]
    best: Callable[[Iterable[float]], float]


ACCURACY = ModelCurve(
    "server_accuracy", "accuracy", lambda r: r.server_accuracy, lambda s: s.accuracies, max
)
LOSS = ModelCurve("server_loss", "loss", lambda r: r.server_loss, lambda s: s.losses, min)


def curves(stories: Sequence[Story]) -> list[Chart]:
    """Draw accuracy and loss after each round, of all the runs in one chart each."""
    return [_chart(curve, stories) for curve in (ACCURACY, LOSS)]


def paper_runs(story: Story) -> list[PaperRun]:
    """Return the paper's runs of the same model, data, rounds and local epochs."""
    asked = story.experiment
    if asked["data"]["name"] != "cifar10":
        return []
    return [
        original
        for original in (*paper.published(), *paper.table2(), *paper.table3())
        if (original.model, original.rounds, original.local_epochs)
        == (asked["model"], asked["rounds"], asked["local_epochs"])
    ]


def _chart(curve: ModelCurve, stories: Sequence[Story]) -> Chart:
    title = f"Global {curve.name} per round"
    known = {s.summary.run: points for s in stories if (points := _points(curve, s))}
    if not known:
        return Chart(curve.name, title, f"No round has the {curve.name} of the global model.")
    colour = colours(story.summary.run for story in stories)
    traces = [_line(run, points, colour[run]) for run, points in known.items()]
    last = max(number for points in known.values() for number in points)
    theirs = _paper_traces(curve, stories)
    layout = {
        "xaxis": rounds_axis(last, range=[0.7, last + 0.3]),
        "yaxis": axis(
            f"{curve.name} on the test images",
            **({"range": [0, 1.02]} if curve is ACCURACY else {"rangemode": "tozero"}),
        ),
        "hovermode": "x unified",
        "showlegend": len(traces) + len(theirs) > 1,
    }
    words = " ".join([*_curve_words(curve, known), *_paper_words(curve, stories)])
    return Chart(curve.name, title, words, [*traces, *theirs], layout)


def _points(curve: ModelCurve, story: Story) -> dict[int, float]:
    points = {record.round: curve.of(record) for record in story.summary.rounds}
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


def _paper_runs(stories: Sequence[Story]) -> list[PaperRun]:
    """Return the paper's runs beside any of ours, each once."""
    return list(dict.fromkeys(chain.from_iterable(map(paper_runs, stories))))


def _paper_traces(curve: ModelCurve, stories: Sequence[Story]) -> list[Trace]:
    """Draw the published curves; where only a table has the final number, a line at it."""
    traces = []
    for original in _paper_runs(stories):
        name = f"{_PAPER}, {original.profile}"
        if values := curve.published(original):
            points = dict(enumerate(values, 1))
            traces.append(_line(f"{name}, published run", points, "@muted", "dot"))
        elif final := _final(curve, original):
            points = {1: final, original.rounds: final}
            line = _line(f"{name}, after {original.rounds} rounds", points, "@muted", "dash")
            traces.append(line | {"mode": "lines"})
    return traces


def _final(curve: ModelCurve, original: PaperRun) -> float | None:
    return next((n.paper for n in original.numbers if n.field == curve.field), None)


def _curve_words(curve: ModelCurve, known: dict[str, dict[int, float]]) -> list[str]:
    finals = {run: list(points.items())[-1] for run, points in known.items()}
    if len(finals) > 1:
        ranked = sorted(finals, key=lambda run: finals[run][1], reverse=curve is ACCURACY)
        first, last = ranked[0], ranked[-1]
        return [
            f"After its last round {first} has the best {curve.name}, {finals[first][1]:.4f}; "
            f"{last} has the worst, {finals[last][1]:.4f}."
        ]
    (points,) = known.values()
    ((number, final),) = finals.values()
    best = curve.best(points.values())
    where = next(number for number, value in points.items() if value == best)
    tail = ", its best" if best == final else f"; its best, {best:.4f}, came after round {where}"
    return [f"The global model has {curve.name} {final:.4f} after round {number}{tail}."]


def _paper_words(curve: ModelCurve, stories: Sequence[Story]) -> list[str]:
    """Say what the paper has, and how our run differs from theirs."""
    known = {_final(curve, original) for original in _paper_runs(stories)}
    finals = sorted(final for final in known if final is not None)
    if not finals:
        return []
    words = [f"{_PAPER} report {' and '.join(f'{final:.4f}' for final in finals)} after the last."]
    for story in stories:
        images = story.experiment["data"]["train_samples"]
        if paper_runs(story) and images:
            words.append(f"Here {images:,} training images take the place of their 50,000.")
            break
    return words


def confusion(story: Story) -> Chart:
    """Draw counts of test images by actual and predicted class, after the last round."""
    title = "Confusion matrix of the global model"
    rounds = story.summary.rounds
    if not rounds or (counts := rounds[-1].confusion) is None:
        words = "This run has none: it came to no last round, or is of an older version."
        return Chart("confusion", title, words)
    names = story.facts.class_names or [str(number) for number in range(len(counts))]
    shares = [[count / max(sum(row), 1) for count in row] for row in counts]
    heat = {
        "type": "heatmap",
        "z": shares,
        "x": names,
        "y": names,
        "customdata": counts,
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[0, "@surface"], [1, paint(BLUE)]],
        "colorbar": {
            "title": {"text": "of its class", "side": "right"},
            "tickformat": ".0%",
            "thickness": 12,
        },
        "xgap": 1,
        "ygap": 1,
        "hovertemplate": (
            "%{y} taken for %{x}: %{customdata} images, %{z:.1%} of its class<extra></extra>"
        ),
    }
    if len(names) <= _LEGIBLE:
        heat["text"] = [[str(count) if count else "" for count in row] for row in counts]
        heat["texttemplate"] = "%{text}"
    layout = {
        "xaxis": axis("predicted", type="category", constrain="domain"),
        "yaxis": axis("actual", type="category", autorange="reversed"),
    }
    return Chart(
        "confusion",
        title,
        _confusion_words(counts, names, story),
        [heat],
        layout,
        _LARGEST,
        wide=True,
    )


def _confusion_words(counts: Sequence[Sequence[int]], names: Sequence[str], story: Story) -> str:
    total = sum(map(sum, counts))
    right = sum(row[number] for number, row in enumerate(counts))
    evaluated = sum(c.evaluate_seconds is not None for c in story.summary.rounds[-1].clients)
    words = f"{right / total:.1%} of the test images are on the diagonal"
    if evaluated > 1:
        words += f" (counts of all {evaluated} devices that evaluated)"
    wrong = {(a, p): n for a, row in enumerate(counts) for p, n in enumerate(row) if a != p and n}
    if not wrong:
        return f"{words}."
    actual, predicted = max(wrong, key=lambda pair: wrong[pair])
    share = wrong[actual, predicted] / sum(counts[actual])
    mistake = f"{names[actual]} taken for {names[predicted]}, {share:.1%} of its images"
    return f"{words}. The commonest mistake: {mistake}."
