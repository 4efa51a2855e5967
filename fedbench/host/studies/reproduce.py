"""Repeats runs of the paper, and sets each number of ours beside the paper's.

A run that is there already is not repeated. It is found by its experiment, its profile and its
engine, and goes on where it was interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean, median
from typing import Any

from fedbench.config import Experiment, load_experiment
from fedbench.config.units import format_number
from fedbench.engines.engine import Engine, EngineName
from fedbench.errors import ConfigError
from fedbench.host.report.tables import paper
from fedbench.host.report.tables.paper import PaperField, PaperNumber, PaperRun
from fedbench.host.report.tables.text_table import Table
from fedbench.host.say import Say
from fedbench.host.watch.top.live import Lines
from fedbench.records import ClientRound, Record, RoundRecord, Summary
from fedbench.records.clock import EmulatedSeconds
from fedbench.records.runs import Run, RunStore

EXPERIMENT = "negi2023"
_TRAIN, _TEST = 50_000, 10_000  # images of CIFAR-10
_OF_TIME = ("local_epoch_seconds", "server_epoch_seconds", "total_hours")


class PaperComparison(Record):
    """One number of the paper and ours; seconds and hours are the emulated device's."""

    model: str
    metric: str
    paper: float
    ours: float

    @property
    def difference(self) -> str:
        """Points for accuracies, per cent for the rest, as text."""
        if "accuracy" in self.metric:
            return f"{100 * (self.ours - self.paper):+.1f} points"
        return f"{self.ours / self.paper - 1:+.0%}"


def choose(what: str | None, run: str | None, models: Sequence[str]) -> list[PaperRun]:
    """Choose the runs to repeat: `table2`, `table3`, or a published run such as `10x5`.

    `10x5` is rounds x local epochs.

    Raises:
        ConfigError: there is no such table or run, or none of these models in it.
    """
    tables = {"table2": paper.table2, "table3": paper.table3}
    if (what in tables) == bool(run):
        asked = " ".join(filter(None, [what, run and f"--run {run}"])) or "neither"
        raise ConfigError(
            f"expected either table2, table3 or --run, found {asked}",
            "give one of them, such as `fedbench reproduce table2`, or `--run 10x5`",
        )
    originals = tables[what]() if what in tables else paper.published()
    named = [original for original in originals if run is None or run == name(original)]
    chosen = [original for original in named if not models or original.model in models]
    if not chosen:
        there = ", ".join(f"{name(original)} {original.model}" for original in originals)
        wanted = f"{f'--run {run}' if run else what} of {', '.join(models) or 'any model'}"
        raise ConfigError(f"the paper has no {wanted}", f"there are {there}")
    return chosen


def name(original: PaperRun) -> str:
    """Name a run by rounds x local epochs, such as `10x5`."""
    return f"{original.rounds}x{original.local_epochs}"


def experiment(
    original: PaperRun, scale: float, rounds: int | None, seed: int, *, tuned: bool = False
) -> Experiment:
    """Return the experiment that repeats a run, on a share `scale` of the data.

    It is the paper's protocol. With `tuned` it is the model's tuned experiment at the same rounds,
    local epochs and data. `rounds` may be fewer than the paper's.
    """
    base = f"tuned-{original.model.replace('_', '-')}" if tuned else EXPERIMENT
    settings = {
        "model": original.model,
        "rounds": rounds or original.rounds,
        "local_epochs": original.local_epochs,
        "seed": seed,
    }
    if scale != 1:
        settings["data.train_samples"] = max(round(_TRAIN * scale), 1)
        settings["data.test_samples"] = max(round(_TEST * scale), 1)
    return load_experiment(base, [f"{key}={value}" for key, value in settings.items()])


class Reproduction:
    """Makes runs, or finds them in the store; `fresh` makes them anew.

    `prepare` returns what makes runs. It is called only where a run has to be made or goes on.
    """

    def __init__(
        self,
        prepare: Callable[[], Engine],
        store: RunStore,
        engine: EngineName,
        say: Say,
        *,
        fresh: bool = False,
    ) -> None:
        self._prepare = prepare
        self._store = store
        self._engine = engine
        self._say = say
        self._fresh = fresh

    def run(self, original: PaperRun, chosen: Experiment, source: Path | None) -> Summary:
        """Make or find a run, and return the summary of its end.

        Raises:
            FedbenchError: the run cannot be made, failed, or was interrupted.
        """
        self._say(f"{original.model}, {chosen.rounds} rounds of {chosen.local_epochs} local epochs")
        run = None if self._fresh else self._find(original, chosen)
        if run and run.summary().status == "finished":
            self._say(f"run {run.id} is there already (--fresh repeats it)")
            return run.summary()
        engine = self._prepare()
        with engine.alone():
            if run:
                self._say(f"going on with run {run.id}")
                run = engine.resume(run.id)
            else:
                run = engine.create(chosen, source)
                self._say(f"run {run.id}")
            engine.start(run)
        return engine.follow(run, Lines(run, self._say))

    def _find(self, original: PaperRun, chosen: Experiment) -> Run | None:
        wanted = chosen.model_dump(mode="json")
        return next((r for r in reversed(self._store.all()) if self._is(r, original, wanted)), None)

    def _is(self, run: Run, original: PaperRun, wanted: dict[str, Any]) -> bool:
        # Unvalidated: a run of an earlier version may have keys that no longer exist.
        chosen = run.asked()
        kind: EngineName = "containers" if run.emulates else "in-process"
        return (chosen, run.facts().profile, kind) == (wanted, original.profile, self._engine)


def compare_with_paper(
    original: PaperRun, summary: Summary, scale: float, engine: EngineName
) -> list[PaperComparison]:
    """Pair numbers of the paper with ours; times on a share of the data are scaled to all of it."""
    rows = []
    for number in original.numbers:
        if number.field in _OF_TIME and engine == "in-process":
            continue
        ours = _ours(number, summary)
        if ours is not None:
            ours /= scale if number.field in _OF_TIME else 1
            rows.append(
                PaperComparison(
                    model=original.model, metric=number.metric, paper=number.paper, ours=ours
                )
            )
    return rows


def _ours(number: PaperNumber, summary: Summary) -> float | None:
    rounds = summary.rounds
    if not rounds:
        return None
    if number.field == "total_hours":
        return summary.emulated_seconds / 3600
    if number.field in ("server_accuracy", "server_loss"):
        value: float | None = getattr(rounds[-1], number.field)
        return value
    if number.field in ("local_accuracy", "local_loss"):
        return _mean(getattr(c, number.field) for c in _clients(rounds[-1:], number.client))
    seconds = _SECONDS[number.field]
    of_clients = list(chain.from_iterable(map(seconds, _clients(rounds, number.client))))
    return median(of_clients) if of_clients else None


_SECONDS: dict[PaperField, Callable[[ClientRound], list[EmulatedSeconds]]] = {
    "local_epoch_seconds": lambda client: client.emulated_epoch_seconds,
    "server_epoch_seconds": lambda client: (
        []
        if client.evaluate_seconds is None
        else [client.dilation.emulated(client.evaluate_seconds)]
    ),
}


def _clients(rounds: Iterable[RoundRecord], only: str | None) -> list[ClientRound]:
    return [c for record in rounds for c in record.clients if only in (None, c.client)]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def caveats(
    scale: float, rounds: int | None, engine: EngineName, *, tuned: bool = False
) -> Iterator[str]:
    """List what the reader of the table must know."""
    if tuned:
        yield "trained as the tuned experiments do, at the paper's rounds, local epochs and data"
    if scale != 1:
        yield f"{scale:g} of the data: accuracies are of models that saw less"
        if engine == "containers":
            yield f"seconds and hours are multiplied by {1 / scale:g}"
    if rounds:
        yield f"after {rounds} rounds; the paper's figures are of all of its rounds"
    if engine == "in-process":
        yield "nothing is emulated in-process: no figure of time is compared"


def table(rows: Iterable[PaperComparison]) -> Table:
    """Make a table of the paper's numbers and ours, a row for each."""
    return ("model", "figure", "the paper's", "ours", "difference"), [
        (row.model, row.metric, f"{row.paper:.4g}", f"{row.ours:.4g}", row.difference)
        for row in rows
    ]


def curves(original: PaperRun, summary: Summary) -> Table:
    """Set the global model of the published run beside ours, round by round."""
    header = ("round", "published accuracy", "ours", "published loss", "ours")
    rows: list[Sequence[str]] = []
    for record in summary.rounds:
        theirs = (_at(original.accuracies, record.round), _at(original.losses, record.round))
        ours = (record.server_accuracy, record.server_loss)
        cells = (theirs[0], ours[0], theirs[1], ours[1])
        rows.append((str(record.round), *(format_number(cell, ".4f") for cell in cells)))
    return header, rows


def _at(values: Sequence[float], number: int) -> float | None:
    return values[number - 1] if number <= len(values) else None
