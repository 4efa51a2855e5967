"""What the global model takes for what, on the test images."""

from __future__ import annotations

from collections.abc import Sequence

from fedbench.host.report.page.chart import Chart, axis
from fedbench.host.report.page.story import Story

_LEGIBLE = 20  # classes whose counts have room in their cells
_LARGEST = 520  # pixels


def confusion(story: Story) -> Chart:
    """Counts by actual and predicted class, after the last round."""
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
        "colorscale": [[0, "@surface"], [1, "#3987e5"]],
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
        "confusion", title, _words(counts, names, story), [heat], layout, _LARGEST, wide=True
    )


def _words(counts: Sequence[Sequence[int]], names: Sequence[str], story: Story) -> str:
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
