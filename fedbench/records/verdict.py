"""Judges if a device was as fast as it should have been, and whose fault it was if not. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any, Self

from pydantic import Field

from fedbench.records.clock import REAL_TIME, Dilation, EmulatedSeconds, WallSeconds
from fedbench.records.energy import Draw
from fedbench.records.facts import EmulatedDevices, RunInputs
from fedbench.records.rounds import ClientRound, EpochRecord

TOLERANCE = 0.05
"""An epoch that is farther from its target than this was not emulated."""
_THROTTLED = 0.05  # of an epoch's time


class Emulation(EmulatedDevices):
    """What the host says of a run's devices, and what follows for what they did.

    `watts`: idle and under load, by device, so that a real one has them too where it is of a kind
    that the host knows.
    """

    watts: dict[str, tuple[float, float]] = Field(default_factory=dict)

    @classmethod
    def of(cls, facts: RunInputs) -> Self:
        """Return the emulation of a run; of one of an older version, none."""
        return cls(**dict(facts.emulation or EmulatedDevices()), watts=facts.watts)

    def dilation_of(self, client: str) -> Dilation:
        """Return the dilation of one client: nothing slows a real device that joined."""
        return self.dilation if client in self.targets or client in self.shares else REAL_TIME

    def verdict(self, client: str, samples: int, epochs: Sequence[EpochRecord]) -> dict[str, Any]:
        """Return the emulation's fields of a `ClientRound`.

        The time that was due is what the client itself kept to, which knows how many others trained
        on its computer; where it did not say, what its target alone allows.
        """
        if client not in self.targets or not epochs:
            return {}
        alone = self.dilation.wall(EmulatedSeconds(samples / self.targets[client]))
        due = [alone if epoch.due_seconds is None else epoch.due_seconds for epoch in epochs]
        errors = [epoch.seconds / wall - 1 for epoch, wall in zip(epochs, due, strict=True)]
        error = median(errors)
        fields: dict[str, Any] = {
            "target_epoch_seconds": self.dilation.emulated(WallSeconds(median(due))),
            "emulation_error": error,
        }
        if abs(error) > TOLERANCE:
            fields["not_held"] = _reason(error, epochs, self.shares.get(client))
        return fields

    def with_energy(
        self, clients: Iterable[ClientRound], seconds: WallSeconds
    ) -> list[ClientRound]:
        """Return the clients of a round of so many seconds, with modelled energy where known.

        Idle watts of a computer are divided among those of its clients that answered
        (`records/energy.py` has the model).
        """
        clients = list(clients)
        answered = Counter(self._computer(c) for c in clients if c.error is None)
        return [self._drawing(c, seconds, answered[self._computer(c)]) for c in clients]

    def _drawing(self, client: ClientRound, seconds: WallSeconds, clients: int) -> ClientRound:
        if client.device not in self.watts or client.error is not None:
            return client
        idle, load = self.watts[client.device]
        share, dilation = client.busy_share_seconds, client.dilation
        whole = dilation.emulated(seconds)
        busy = min(dilation.emulated(client.busy_seconds), whole)  # two clocks may differ a little
        energy = Draw.of(idle, load, clients).energy(
            idle=EmulatedSeconds(whole - busy),
            busy=busy,
            share=None if share is None else dilation.emulated(share),
        )
        joules = {"energy_idle_joules": energy.idle, "energy_busy_joules": energy.busy}
        return client.model_copy(update=joules)

    def _computer(self, client: ClientRound) -> str:
        return self.computers.get(client.client, client.client)


REAL = Emulation()
"""A run on real devices."""


def _reason(error: float, epochs: Sequence[EpochRecord], planned: float | None) -> str:
    """Say why a device was off its target by more than the tolerance, with the figures."""
    seconds = sum(epoch.seconds for epoch in epochs)
    steal = sum(epoch.steal_seconds for epoch in epochs) / seconds
    throttled = sum(epoch.throttled_seconds for epoch in epochs) / seconds
    had = sum(epoch.cpu_seconds for epoch in epochs) / seconds
    text = f"{error:+.0%} off its target: it had {had:.2f} CPUs"
    if planned is not None:
        text += f", {planned:.2f} were planned"
    if error < 0:
        return f"{text}; nothing held it back to its pace"
    if steal > error / (1 + error) / 2:  # of what it lost, the better part
        return f"{text}; the hypervisor took {steal:.0%} of its time: the host is too busy"
    if throttled > _THROTTLED:
        return f"{text}; its quota held it back for {throttled:.2f} CPU s in each second"
    return f"{text}; nothing held it back: the host is too slow or too busy"
