"""The numbers of Negi & Chinara, "Study of MobileNets Model in Federated Learning".

They are in `configs/reference/negi2023.yaml`: Tables II and III of the paper, and the logs of its
runs that the authors published, with losses and accuracies round by round.
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

PaperField = Literal[
    "server_accuracy", "server_loss", "local_accuracy", "local_loss",
    "local_epoch_seconds", "server_epoch_seconds", "total_hours",
]  # fmt: skip


class PaperNumber(Record):
    """One number of the paper, of one `client`; without a client it is of all, or the mean."""

    field: PaperField
    paper: float
    client: str | None = None

    @property
    def metric(self) -> str:
        """Name of the number in tables, with its client."""
        return f"{self.field} ({self.client})" if self.client else self.field


class PaperRun(Record):
    """One run of the paper: its numbers, and the curves of the published log where there is one."""

    model: ModelName
    rounds: int
    local_epochs: int
    profile: str
    numbers: tuple[PaperNumber, ...]
    accuracies: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()


def table2(path: Path = PATH) -> list[PaperRun]:
    """Read Table II: MobileNetV2 on three devices."""
    table = _read(path)["table_2_three_devices"]
    numbers = [*_numbers(table)]
    for device in table["devices"]:
        numbers += _numbers(device, device["device"])
    return [_paper_run("mobilenet_v2", table, TRIO, numbers)]


def table3(path: Path = PATH) -> list[PaperRun]:
    """Read Table III: the four models, each with two clients on the legacy PC."""
    table = _read(path)["table_3_two_clients_on_legacy_pc"]
    logs = {original.model: original for original in published(path) if _is_of(original, table)}
    runs = []
    for row in table["rows"]:
        original = _paper_run(row["model"], table, PAIR, [*_numbers(row)])
        if log := logs.get(original.model):
            original = original.model_copy(
                update={"accuracies": log.accuracies, "losses": log.losses}
            )
        runs.append(original)
    return runs


def published(path: Path = PATH) -> list[PaperRun]:
    """Read the runs whose logs the authors published."""
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
    original = _paper_run(run["model"], run, PAIR, [*_numbers(values)])
    curves = {
        "accuracies": tuple(run["server_accuracy_per_round"]),
        "losses": tuple(run["server_loss_per_round"]),
    }
    return original.model_copy(update=curves)


def _paper_run(
    model: str, protocol: Mapping[str, Any], profile: str, numbers: list[PaperNumber]
) -> PaperRun:
    return PaperRun(
        model=model,
        rounds=protocol["rounds"],
        local_epochs=protocol["local_epochs"],
        profile=profile,
        numbers=tuple(numbers),
    )


def _numbers(values: Mapping[str, Any], client: str | None = None) -> Iterator[PaperNumber]:
    """Read the numbers of a row of a table; a list of two has one for each client."""
    for field in get_args(PaperField):
        value = values.get(field)
        if isinstance(value, list):
            for count, of_client in enumerate(value, 1):
                yield PaperNumber(field=field, paper=of_client, client=f"legacy-pc-{count}")
        elif value is not None:
            yield PaperNumber(field=field, paper=value, client=client)


def _is_of(original: PaperRun, table: Mapping[str, Any]) -> bool:
    return (original.rounds, original.local_epochs) == (table["rounds"], table["local_epochs"])


def _read(path: Path) -> dict[str, Any]:
    published: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return published
