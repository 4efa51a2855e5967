"""A run's folder as the server writes it: records as they happen, the model after each round."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from fedbench.records import RoundRecord, read_lines, replace_text

_FLAT = "weights"
_ROUND = "round"
_VELOCITY = "velocity"


class RunFolder:
    """`runs/<id>/`. A crash loses at most the round in flight."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def stop_requested(self) -> bool:
        """Say whether the user asked to stop."""
        return (self.path / "stop").exists()

    def event(self, event: str, **facts: object) -> None:
        """Append one line to `events.jsonl`, for whoever watches."""
        moment = datetime.now(UTC).isoformat(timespec="milliseconds")
        _append(self.path / "events.jsonl", json.dumps({"time": moment, "event": event} | facts))

    def add_round(
        self, record: RoundRecord, weights: np.ndarray, velocity: np.ndarray | None = None
    ) -> None:
        """Append the round's record, then replace the checkpoint by the model after it."""
        _append(self.path / "rounds.jsonl", record.model_dump_json())
        self.save_weights(weights, record.round, velocity)

    def save_weights(
        self, weights: np.ndarray, server_round: int, velocity: np.ndarray | None = None
    ) -> None:
        """Replace the checkpoint by the flat global model after `server_round`.

        `velocity` is the server's momentum, where it has one.
        """
        temporary = self.path / "checkpoint.tmp"
        tensors = {_FLAT: weights} if velocity is None else {_FLAT: weights, _VELOCITY: velocity}
        save_file(tensors, temporary, {_ROUND: str(server_round)})
        os.replace(temporary, self.path / "checkpoint.safetensors")

    def resume(self) -> tuple[int, np.ndarray] | None:
        """Return the last complete round and the flat global model after it; None at the start.

        A record whose checkpoint was not written any more is dropped: that round is repeated.
        """
        last, weights = self._checkpoint()
        rounds = self.path / "rounds.jsonl"
        complete = [line for line in read_lines(rounds) if line["round"] <= last]
        replace_text(rounds, "".join(json.dumps(line) + "\n" for line in complete))
        return None if weights is None else (last, weights)

    def velocity(self) -> np.ndarray | None:
        """Return the server's momentum after the last complete round; None where it has none."""
        path = self.path / "checkpoint.safetensors"
        return load_file(path).get(_VELOCITY) if path.exists() else None

    def _checkpoint(self) -> tuple[int, np.ndarray | None]:
        path = self.path / "checkpoint.safetensors"
        if not path.exists():
            return 0, None
        with safe_open(path, "np") as file:
            return int(file.metadata()[_ROUND]), file.get_tensor(_FLAT)


def _append(path: Path, line: str) -> None:
    # One write of one whole line: a reader never sees half of it, short of a power cut.
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
