"""Device profiles as a table: what each has, how fast it is, what it draws, on which network."""

from __future__ import annotations

from collections.abc import Iterable

from fedbench.config import Device
from fedbench.host.report.tables.text_table import Table


def device_profile_table(devices: Iterable[Device]) -> Table:
    """Make a row per device; `~` stands before a speed that is estimated."""
    header = ("device", "cores", "memory", "GPU", "samples/s", "W idle-load", "network")
    return header, [_row(device) for device in devices]


def _row(device: Device) -> tuple[str, ...]:
    texts, gpu, watts = device.figures(), device.gpu, device.watts
    rates = [texts[key] for key in ("network.down", "network.up") if key in texts]
    return (
        device.name,
        texts["cores"],
        texts["memory"],
        gpu.model if gpu else "-",
        _lines(_speeds(device)),
        f"{watts.idle:g}-{watts.load:g}" if watts else "-",
        texts.get("network") or _lines(dict.fromkeys(rates)),
    )


def _speeds(device: Device) -> Iterable[str]:
    estimated = device.estimated()
    for model, speed in device.speed.items():
        mark = "~" if f"speed.{model}" in estimated else ""
        yield f"{mark}{speed:.0f} {model.removeprefix('mobilenet_')}"


def _lines(texts: Iterable[str]) -> str:
    return "\n".join(texts) or "-"
