"""What of a federation is looked at, and how each key changes that. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fedbench.host.watch.top.state import Device

HELP = "s sort   ↑ ↓ or k j select   Enter details   Esc or q back   q quit"
# Columns by which devices can be sorted, the highest figure first; by name where there is none.
_SORTS: dict[str, Callable[[Device], float | None]] = {
    "client": lambda _: None,
    "emulated s": lambda device: device.epoch_seconds,
    "CPU of quota": lambda device: device.cpu_use,
    "memory MiB": lambda device: device.memory,
    "kJ": lambda device: device.joules,
}
SORTS = tuple(_SORTS)


@dataclass(frozen=True)
class View:
    """The title of the column that sorts, the selected client, and what is open."""

    sort: str = SORTS[0]
    client: str = ""
    detail: bool = False
    help: bool = False

    def devices(self, devices: Sequence[Device]) -> tuple[Device, ...]:
        """The devices in their order; those without the figure last."""

        def place(device: Device) -> tuple[bool, float, str]:
            figure = _SORTS[self.sort](device)
            if figure is None or math.isnan(figure):
                return True, 0.0, device.client
            return False, -figure, device.client

        return tuple(sorted(devices, key=place))

    def selected(self, devices: Sequence[Device]) -> Device | None:
        """The selected device, the first one where it has gone; None where there is none."""
        shown = self.devices(devices)
        return next((d for d in shown if d.client == self.client), next(iter(shown), None))

    def after(self, key: str, devices: Sequence[Device]) -> View | None:
        """What is looked at once the key has been pressed; None after the last one, q."""
        changed: View | None = self
        match key:
            case "q" | "escape" if self.detail and devices:
                changed = replace(self, detail=False)
            case "q":
                changed = None
            case "escape":
                changed = replace(self, help=False)
            case "?":
                changed = replace(self, help=not self.help)
            case "s":
                changed = replace(self, sort=SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)])
            case "enter":
                changed = self._opened(devices)
            case "up" | "k":
                changed = self._moved(-1, devices)
            case "down" | "j":
                changed = self._moved(1, devices)
        return changed

    def _opened(self, devices: Sequence[Device]) -> View:
        """The selected device, which stays open when another one comes to the first place."""
        chosen = self.selected(devices)
        return replace(self, client=chosen.client, detail=True) if chosen else self

    def _moved(self, by: int, devices: Sequence[Device]) -> View:
        """From whom the first key finds selected, to a neighbour, and not beyond the ends."""
        chosen = self.selected(devices)
        if chosen is None:
            return self
        shown = self.devices(devices)
        index = min(max(shown.index(chosen) + by, 0), len(shown) - 1)
        return replace(self, client=shown[index].client)
