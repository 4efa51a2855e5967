"""What a client tells of its work, whoever listens.

The process that trains reports to a `WorkObserver`. Where Prometheus looks that is `ClientMetrics`
(client.py); in the engine that trains in one program it is a `WorkCounter`. Whoever starts the
process chooses. So this module knows nothing of prometheus_client.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, Protocol, get_args

ClientPhase = Literal["waiting", "receiving", "training", "evaluating", "sending"]
CLIENT_PHASES: tuple[ClientPhase, ...] = get_args(ClientPhase)


class WorkObserver(Protocol):
    """Is told what a client does, as it does it."""

    def phase(self, name: ClientPhase) -> AbstractContextManager[None]:
        """Be in this phase within the block, then in the one before."""

    def partition(self, samples: int) -> None:
        """Say how many training samples this client has."""

    def progress(
        self, *, run: str, round_number: int, epoch: int, epochs: int, samples: int, seconds: float
    ) -> None:
        """Report `samples` done after `seconds` of `epoch` (of `epochs`, counted from 1)."""

    def epoch_finished(
        self,
        *,
        run: str,
        round_number: int,
        seconds: float,
        loss: float,
        accuracy: float,
        samples: int,
        due: float | None = None,
    ) -> None:
        """Report a whole local epoch over `samples`, those told to `progress` included.

        `due` are the wall seconds that it should have taken; None on a real device.
        """

    def evaluated(
        self, *, run: str, round_number: int, seconds: float, loss: float, accuracy: float
    ) -> None:
        """Report the global model's evaluation on this client's test samples."""

    def late(self, run: str, seconds: float) -> None:
        """Say by how much training is behind the emulated device."""

    def transferred(
        self, *, sent: int = 0, received: int = 0, seconds: float = 0.0, model: bool = False
    ) -> None:
        """Add bytes exchanged with the server, in one direction or in both, and what that took.

        Those with a `model` alone are remembered as the last: others take next to no time.
        """

    def error(self) -> None:
        """Count a message that was answered with an error."""


class EpochSamples:
    """Counts the samples of epochs, each of which is reported as a sum that grows."""

    def __init__(self) -> None:
        self._counted = 0

    def more(self, samples: int) -> int:
        """Return how many of the epoch's `samples` were not reported before."""
        before = self._counted if samples >= self._counted else 0  # 0: a new epoch
        self._counted = samples
        return samples - before

    def finish(self) -> None:
        """End the epoch: the next report is of another one."""
        self._counted = 0


class WorkCounter:
    """Counts the samples that were trained, and forgets all else."""

    def __init__(self) -> None:
        self.trained_samples = 0
        self._epoch = EpochSamples()

    @contextmanager
    def phase(self, name: ClientPhase) -> Iterator[None]:  # noqa: ARG002
        """Take note of nothing."""
        yield

    def partition(self, samples: int) -> None:
        """Take note of nothing."""

    def progress(self, *, samples: int, **_: object) -> None:
        """Count what is new."""
        self.trained_samples += self._epoch.more(samples)

    def epoch_finished(self, *, samples: int, **_: object) -> None:
        """Count what is new, and begin another epoch."""
        self.trained_samples += self._epoch.more(samples)
        self._epoch.finish()

    def evaluated(self, **_: object) -> None:
        """Take note of nothing."""

    def late(self, run: str, seconds: float) -> None:
        """Take note of nothing."""

    def transferred(
        self, *, sent: int = 0, received: int = 0, seconds: float = 0.0, model: bool = False
    ) -> None:
        """Take note of nothing."""

    def error(self) -> None:
        """Take note of nothing."""
