"""What the clients of one round reported, and what became of the round's time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

from flwr.app import Message

from fedbench.records import ClientRound, EpochRecord, RoundParts, RoundRecord
from fedbench.records.verdict import REAL, Emulation
from fedbench.server.directory import Directory, Member

Kind = Literal["train", "evaluate"]


class Tally:
    """What each client of one round reported."""

    def __init__(
        self, members: Iterable[Member], directory: Directory, emulation: Emulation = REAL
    ) -> None:
        self._emulation = emulation
        self._members = list(members)
        self._directory = directory
        self._figures: dict[str, dict[str, Any]] = {
            m.client: {
                "client": m.client,
                "device": m.device,
                "dilation": emulation.dilation_of(m.client),
            }
            for m in self._members
        }
        self._answered: dict[tuple[Kind, str], Counter[str]] = {}
        self._confusion = Counter[int]()  # by cell of the flat matrix

    def survivors(self) -> list[Member]:
        """Those that trained: whoever failed to would only be waited for once more."""
        return [member for member in self._members if "samples" in self._figures[member.client]]

    def trained(self, node_id: int, reply: Message, lap: Counter[str]) -> None:
        """Counts a reply to a train message; `lap` is what the server spent for it."""
        if (metrics := self._metrics("train", node_id, reply, lap)) is None:
            return
        figures = self._figures[self._directory.member(node_id).client]
        epochs = _epochs(metrics)
        figures |= {
            "epoch_seconds": metrics.get("epoch-seconds", []),
            "epochs": epochs,
            "samples": metrics["num-examples"],
            "local_loss": metrics.get("loss"),
            "local_accuracy": metrics.get("accuracy"),
            "cpu_seconds": metrics.get("cpu-seconds"),
            "throttled_seconds": metrics.get("throttled-seconds"),
        }
        _share(figures, metrics, sum(figures["epoch_seconds"]))
        figures |= self._emulation.verdict(
            figures["client"],
            metrics["num-examples"],
            epochs,
            metrics.get("epoch-due-seconds", []),
        )

    def evaluated(self, node_id: int, reply: Message, lap: Counter[str]) -> None:
        """Counts a reply to an evaluate message; `lap` is what the server spent for it."""
        if (metrics := self._metrics("evaluate", node_id, reply, lap)) is None:
            return
        figures = self._figures[self._directory.member(node_id).client]
        figures |= {
            "evaluate_seconds": metrics.get("evaluate-seconds"),
            "server_loss": metrics.get("loss"),
            "server_accuracy": metrics.get("accuracy"),
            "test_samples": metrics["num-examples"],
            "evaluate_download_seconds": metrics.get("download-seconds"),
            # A reply cannot time itself: this is the trained model's. That of this one, a
            # few numbers, is never known, and part of what is left.
            "upload_seconds": metrics.get("upload-seconds"),
        }
        _share(figures, metrics, metrics.get("evaluate-seconds", 0.0))
        self._confusion.update(dict(enumerate(metrics.get("confusion", []))))

    def _metrics(
        self, kind: Kind, node_id: int, reply: Message, lap: Counter[str]
    ) -> dict[str, Any] | None:
        client = self._directory.member(node_id).client
        figures = self._figures[client]
        self._answered[kind, client] = lap
        if reply.has_error():
            figures["error"] = f"{kind}: {reply.error.reason}"
            return None
        metrics: dict[str, Any] = dict(reply.content["metrics"])
        for key in ("bytes_sent", "bytes_received", "download_seconds", "serialise_seconds"):
            if (value := metrics.get(key.replace("_", "-"))) is not None:
                figures[key] = figures.get(key, 0) + value
        figures["peak_memory_bytes"] = metrics.get("peak-memory-bytes")
        return metrics

    def record(
        self,
        number: int,
        started_at: str,
        duration: float,
        aggregate_seconds: float,
        last_aggregate_seconds: float,
        *,
        last: bool = False,
    ) -> RoundRecord:
        """The round's record; clients that never answered are marked late.

        `last_aggregate_seconds` are those of the aggregation since the last reply came. The `last`
        round's has the confusion matrix: one in each would be most of a run's records.
        """
        for client, figures in self._figures.items():
            for kind in ("train", "evaluate"):
                if (kind, client) not in self._answered and "error" not in figures:
                    figures |= {"error": f"{kind}: no answer before the round's timeout"}
                    figures |= {"late": True}
        weights = {client: f.pop("test_samples", 0) for client, f in self._figures.items()}
        reported = [ClientRound(**figures) for figures in self._figures.values()]
        clients = self._emulation.with_energy(reported, duration)
        overhead = duration - max((client.busy_seconds for client in clients), default=0.0)
        return RoundRecord(
            round=number,
            started_at=started_at,
            server_accuracy=_mean(clients, weights, "server_accuracy"),
            server_loss=_mean(clients, weights, "server_loss"),
            server_epoch_seconds=max(
                (c.evaluate_seconds for c in clients if c.evaluate_seconds is not None),
                default=None,
            ),
            duration_seconds=duration,
            overhead_seconds=overhead,
            parts=self._parts(clients, overhead, last_aggregate_seconds),
            aggregate_seconds=aggregate_seconds,
            confusion=_matrix(self._confusion) if last else None,
            clients=clients,
        )

    def _parts(self, clients: list[ClientRound], overhead: float, aggregate: float) -> RoundParts:
        """The overhead's parts, along the way of the client whose work it does not contain.

        Of several such clients, as where none has work to do, the one that answered last counts.
        What the server and that client spend on it follows one after the other, so that the rest
        is what was waited: for the scheduler, for polls, for other clients.
        """
        order = [client for kind, client in self._answered if kind == "train"]
        slowest = max(
            clients,
            key=lambda c: (c.busy_seconds, order.index(c.client) if c.client in order else -1),
            default=None,
        )
        if slowest is None or slowest.upload_seconds is None:
            return RoundParts(aggregate=aggregate)
        server = sum(self._answered.values(), Counter[str]())
        own = self._answered["train", slowest.client] + self._answered["evaluate", slowest.client]
        send = server["send"] + (slowest.download_seconds or 0.0)
        receive = own["receive"] + slowest.upload_seconds
        serialise = server["pack"] + own["unpack"] + (slowest.serialise_seconds or 0.0)
        wait = overhead - send - receive - serialise - aggregate
        return RoundParts(
            send=send, receive=receive, serialise=serialise, aggregate=aggregate, wait=wait
        )


def _share(figures: dict[str, Any], metrics: dict[str, Any], seconds: float) -> None:
    """Adds what of these busy seconds was the client's own on its computer, where it says so."""
    if (share := metrics.get("busy-share")) is not None:
        figures["busy_share_seconds"] = figures.get("busy_share_seconds", 0.0) + share * seconds


def _epochs(metrics: dict[str, Any]) -> list[EpochRecord]:
    parts = [
        metrics.get(f"epoch-{part}seconds", []) for part in ("", "cpu-", "throttled-", "steal-")
    ]
    return [
        EpochRecord(
            seconds=seconds, cpu_seconds=cpu, throttled_seconds=throttled, steal_seconds=steal
        )
        for seconds, cpu, throttled, steal in zip(*parts, strict=False)
    ]


def _matrix(counts: Counter[int]) -> list[list[int]] | None:
    """The square matrix of its cells row by row; None where there are none."""
    size = math.isqrt(len(counts))
    rows = [[counts[size * row + column] for column in range(size)] for row in range(size)]
    return rows or None


def _mean(clients: list[ClientRound], weights: dict[str, int], field: str) -> float | None:
    """The mean over the clients that reported it, weighted by their test images."""
    known = [(getattr(c, field), weights[c.client]) for c in clients]
    known = [(value, weight) for value, weight in known if value is not None]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else None
