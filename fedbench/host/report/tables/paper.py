"""What Negi & Chinara, "Study of MobileNets Model in Federated Learning", reported and published.

Read from `configs/reference/negi2023.yaml`: Tables II and III of the paper, and the logs of its
runs with their losses and accuracies round by round.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from fedbench.config import CONFIGS, ModelName
from fedbench.records import Record

PATH = CONFIGS / "reference" / "negi2023.yaml"
TRIO, PAIR = "heterogeneous", "legacy-pair"
"""The profiles of Table II and of everything else: two clients on the legacy PC."""

Field = Literal[
    "server_accuracy", "server_loss", "local_accuracy", "local_loss",
    "local_epoch_seconds", "server_epoch_seconds", "total_hours",
]  # fmt: skip


class Figure(Record):
    """One number of the paper; `client` where it is one client's, else it is of all or the mean."""

    field: Field
    paper: float
    client: str | None = None

    @property
    def metric(self) -> str:
        """Its name."""
        return f"{self.field} ({self.client})" if self.client else self.field


class PaperRun(Record):
    """One run of the paper: its figures, and the curves of the published log where there is one."""

    model: ModelName
    rounds: int
    local_epochs: int
    profile: str
    figures: tuple[Figure, ...]
    accuracies: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()


def table2(path: Path = PATH) -> list[PaperRun]:
    """Table II: MobileNetV2 on three devices."""
    table = _read(path)["table_2_three_devices"]
    figures = [*_figures(table)]
    for device in table["devices"]:
        figures += _figures(device, device["device"])
    return [_paper_run("mobilenet_v2", table, TRIO, figures)]


def table3(path: Path = PATH) -> list[PaperRun]:
    """Table III: the four models, each with two clients on the legacy PC."""
    reference = _read(path)
    table = reference["table_3_two_clients_on_legacy_pc"]
    logs = {original.model: original for original in published(path) if _is_of(original, table)}
    found = []
    for row in table["rows"]:
        original = _paper_run(row["model"], table, PAIR, [*_figures(row)])
        if log := logs.get(original.model):
            original = original.model_copy(
                update={"accuracies": log.accuracies, "losses": log.losses}
            )
        found.append(original)
    return found


def published(path: Path = PATH) -> list[PaperRun]:
    """The runs whose logs the authors published."""
    return [_published(run) for run in _read(path)["published_runs"]]


def _published(run: Mapping[str, Any]) -> PaperRun:
    values = {
        "server_accuracy": run["final_server_accuracy"],
        "server_loss": run["final_server_loss"],
        "local_accuracy": run["final_local_accuracy"],
        "local_loss": run["final_local_loss"],
        "local_epoch_seconds": run["epoch_seconds_mean"],
        "server_epoch_seconds": run["evaluate_seconds_median"],
        "total_hours": run["total_seconds"] / 3600,
    }
    original = _paper_run(run["model"], run, PAIR, [*_figures(values)])
    curves = {
        "accuracies": tuple(run["server_accuracy_per_round"]),
        "losses": tuple(run["server_loss_per_round"]),
    }
    return original.model_copy(update=curves)


def _paper_run(model: str, of: Mapping[str, Any], profile: str, figures: list[Figure]) -> PaperRun:
    return PaperRun(
        model=model,
        rounds=of["rounds"],
        local_epochs=of["local_epochs"],
        profile=profile,
        figures=tuple(figures),
    )


def _figures(values: Mapping[str, Any], client: str | None = None) -> Iterator[Figure]:
    """Those of a row of a table; of two values, each is one client's."""
    for field in get_args(Field):
        value = values.get(field)
        if isinstance(value, list):
            for number, one in enumerate(value, 1):
                yield Figure(field=field, paper=one, client=f"legacy-pc-{number}")
        elif value is not None:
            yield Figure(field=field, paper=value, client=client)


def _is_of(original: PaperRun, table: Mapping[str, Any]) -> bool:
    return (original.rounds, original.local_epochs) == (table["rounds"], table["local_epochs"])


def _read(path: Path) -> dict[str, Any]:
    reference: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return reference
