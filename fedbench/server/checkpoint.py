"""A run's folder as the server writes it: records as they happen, the model after each round.

The checkpoint of a round holds the round's record as well, and is written first: a crash at any
moment loses the round in flight and nothing else. The checkpoint before it is kept, for one that a
disk damaged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedbench.errors import DamagedFileError
from fedbench.flower.clock import now
from fedbench.records import RoundRecord
from fedbench.records.events import append_event
from fedbench.records.executing import SPARE_FILE
from fedbench.records.files import (
    ASIDE,
    UNREADABLE,
    reason,
    replace_bytes,
    replace_text,
    sync_folder,
    write_aside,
)
from fedbench.records.lines import append_line, scan_lines
from fedbench.records.rounds import ROUNDS_FILE, parse_round

Tell = Callable[[str], object]
MOST_HEADER_BYTES = 64 * 2**20
"""A checkpoint's header has the record of one round: a longer one is no checkpoint's."""
CHECKPOINT, PREVIOUS = "checkpoint.safetensors", "checkpoint.previous.safetensors"
"""The model after the last complete round, and after the one before it."""
SPARE_BYTES = 2**20
"""Room for the last event and the summary of a run whose disk is full."""
_FLAT, _VELOCITY = "weights", "velocity"
_ROUND, _RECORD, _DIGEST = "round", "record", "sha256"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The flat global model float32 [P] after a round, and the round's record as JSON.

    `velocity` is the server's momentum, where it has one. Those of older versions have no record.
    """

    round: int
    weights: np.ndarray
    velocity: np.ndarray | None = None
    record: str = ""

    def dump(self) -> bytes:
        """Return it as safetensors, with a checksum."""
        facts = {_ROUND: str(self.round), _RECORD: self.record, _DIGEST: self._digest()}
        return save(self._tensors(), facts)

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Read a file with what `dump` returned.

        Raises:
            DamagedFileError: it is missing, cut off, changed, or no checkpoint.
        """
        try:
            _require_small_header(path)
            with safe_open(path, "np") as file:
                facts = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            velocity, record = tensors.get(_VELOCITY), facts.get(_RECORD, "")
            checkpoint = cls(int(facts[_ROUND]), tensors[_FLAT], velocity, record)
            checkpoint._require_whole(facts)
        except FileNotFoundError:
            raise DamagedFileError(path, "is missing") from None
        except (OSError, SafetensorError, *UNREADABLE) as error:
            raise DamagedFileError(path, f"is damaged: {reason(error)}") from None
        return checkpoint

    def _tensors(self) -> dict[str, np.ndarray]:
        tensors = {_FLAT: self.weights, _VELOCITY: self.velocity}
        return {name: array for name, array in tensors.items() if array is not None}

    def _require_whole(self, facts: dict[str, str]) -> None:
        # Older versions wrote the round and nothing else.
        if facts.keys() != {_ROUND} and facts.get(_DIGEST) != self._digest():
            raise ValueError("its checksum is another")
        if self.weights.dtype != np.float32 or self.weights.ndim != 1:
            raise ValueError(f"{self.weights.dtype} {self.weights.shape} is no flat model")

    def _digest(self) -> str:
        digest = sha256(f"{self.round} {self.record}".encode())
        for name, array in self._tensors().items():
            digest.update(f"\0{name} {array.dtype} {array.shape}\0".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


class RunFolder:
    """`runs/<id>/`. A crash loses at most the round in flight."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def stop_requested(self) -> bool:
        """Say whether the user asked to stop."""
        return (self.path / "stop").exists()

    def event(self, event: str, **facts: object) -> None:
        """Append one line to `events.jsonl`, for whoever watches."""
        append_event(self.path, event, now(), **facts)

    @contextmanager
    def spare_room(self) -> Iterator[None]:
        """Keep room on the disk, while the block runs, for the words that say how it ended."""
        spare = self.path / SPARE_FILE
        replace_bytes(spare, bytes(SPARE_BYTES))
        try:
            yield
        finally:
            spare.unlink(missing_ok=True)

    def add_round(
        self, record: RoundRecord, weights: np.ndarray, velocity: np.ndarray | None = None
    ) -> None:
        """Keep the model after a round, and append the round's record.

        Raises:
            OSError: the disk is full: the model and the records before are still there.
        """
        line = record.model_dump_json()
        self._keep(Checkpoint(record.round, weights, velocity, line))
        append_line(self.path / ROUNDS_FILE, line, sync=True)

    def add_failed_round(self, record: RoundRecord) -> None:
        """Append the record of a round that ended the run; one that goes on repeats the round."""
        append_line(self.path / ROUNDS_FILE, record.model_dump_json(), sync=True)

    def _keep(self, checkpoint: Checkpoint) -> None:
        newest = self.path / CHECKPOINT
        aside = write_aside(newest, checkpoint.dump())
        with suppress(FileNotFoundError):
            newest.replace(self.path / PREVIOUS)
        aside.replace(newest)
        sync_folder(self.path)

    def resume(self, tell: Tell = lambda _: None) -> Checkpoint | None:
        """Return the model to go on with, after the last complete round; None at the start.

        Records and model agree then: a record of a later round is dropped, for that round is
        repeated, and one that is missing is taken from the checkpoint, which has it. `tell` is
        told what was damaged.

        Raises:
            DamagedFileError: no checkpoint can be read, though there were some.
        """
        for leftover in self.path.glob(f"*{ASIDE}"):
            leftover.unlink()
        whole, damage = self._checkpoints()
        if not whole:
            self._require_new(damage)
            return None
        newest = whole[0]
        for error in damage:
            tell(f"{error.message}; the run goes on after round {newest.round}")
        self._repair_rounds(newest.round, [each.record for each in whole], tell)
        return newest

    def last_round(self) -> int:
        """Return the round that a run goes on after; 0 where there is none."""
        whole, _ = self._checkpoints()
        return whole[0].round if whole else 0

    def _checkpoints(self) -> tuple[list[Checkpoint], list[DamagedFileError]]:
        """Return those that can be read, the newest first, and why others cannot be."""
        whole, damage = [], []
        for path in (self.path / CHECKPOINT, self.path / PREVIOUS):
            if not path.exists():
                continue
            try:
                whole.append(Checkpoint.read(path))
            except DamagedFileError as error:
                damage.append(error)
        return whole, damage

    def _require_new(self, damage: list[DamagedFileError]) -> None:
        """Raise why the run cannot begin at its first round, where it has begun before."""
        for error in damage:
            raise error
        rounds = self.path / ROUNDS_FILE
        if not rounds.exists() or not rounds.stat().st_size:
            return
        scan = scan_lines(rounds, parse_round)
        if scan.torn or scan.damaged or any(not record.below_minimum for record in scan.whole):
            raise DamagedFileError(
                self.path / CHECKPOINT,
                "is missing, but rounds were recorded: the run cannot go on after them",
            )
        rounds.unlink()  # the first round failed, and is repeated

    def _repair_rounds(self, last: int, kept: list[str], tell: Tell) -> None:
        path = self.path / ROUNDS_FILE
        scan = scan_lines(path, _numbered)
        lines = dict(_numbered(line.encode()) for line in kept if line) | dict(scan.whole)
        agreeing = {number: line for number, line in sorted(lines.items()) if number <= last}
        if repeated := sorted(lines.keys() - agreeing.keys()):
            tell(f"rounds {repeated} have no checkpoint, and are repeated")
        if scan.torn or scan.damaged:
            lost = sorted(set(range(1, last + 1)) - agreeing.keys())
            what = f"the records of rounds {lost} are lost" if lost else "nothing is lost"
            tell(f"{path} was damaged and is repaired: {what}")
        replace_text(path, "".join(f"{line}\n" for line in agreeing.values()))


def _numbered(line: bytes) -> tuple[int, str]:
    """Return a record's round, and the record as it was written."""
    return parse_round(line).round, line.decode()


def _require_small_header(path: Path) -> None:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > MOST_HEADER_BYTES:
        raise ValueError(f"a header of {size} bytes")
