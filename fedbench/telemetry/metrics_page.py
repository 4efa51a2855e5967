"""METRICS.md: the declarations as tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fedbench.telemetry.metrics import CLIENT, CONTAINER, SERVER, STOCK, DeclaredMetric

_HEAD = """# Metrics

Made by `python -m fedbench.telemetry > METRICS.md` from `fedbench/telemetry/metrics.py`; a test
keeps it true.

Prometheus adds `job` to all of them, `client` and `device` to a client's (job `clients`). A metric
with the label `run` is there from when a run first sets it to the beginning of the next run.
Seconds are wall seconds but for those called emulated. A histogram's samples end in `_bucket`,
`_count` and `_sum`.
"""
_STOCK = f"""With the stock node, which trains in processes of Flower's own, all are absent but
{", ".join(f"`{metric.name}`" for metric in STOCK)}.

"""
_PARTS = (
    ("Of a client", _STOCK, CLIENT),
    ("Of a container, a client's or the server's", "", CONTAINER),
    ("Of the server", "", SERVER),
)


def render() -> str:
    """Return the whole page."""
    return "\n".join([_HEAD, *(_part(*part) for part in _PARTS)])


def _part(title: str, text: str, metrics: Iterable[DeclaredMetric]) -> str:
    rows = ["| name | kind | unit | labels | what | absent |", "|" + " --- |" * 6]
    rows += ["| " + " | ".join(_row(metric)) + " |" for metric in metrics]
    return f"## {title}\n\n{text}" + "\n".join(rows) + "\n"


def _row(metric: DeclaredMetric) -> Iterator[str]:
    yield f"`{metric.name}`"
    yield metric.kind
    yield metric.unit
    yield ", ".join(metric.labels) or "-"
    yield metric.help
    yield metric.absent or "-"
