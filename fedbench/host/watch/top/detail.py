"""Everything that matters of one device, a line for each topic."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import astuple

from rich.table import Table
from rich.text import Text

from fedbench.config.units import format_number
from fedbench.host.watch.top.device_table import bar, error, phase, scaled
from fedbench.host.watch.top.state import DeviceState, Snapshot, Traffic

_MIB = 2**20


def detail(device: DeviceState, state: Snapshot) -> Table:
    """Return a line for each topic; a dash is what nobody measured.

    What a device does not have, as a GPU, is left out.
    """
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    for topic, text in _lines(device, state):
        table.add_row(topic, text)
    return table


def _lines(device: DeviceState, state: Snapshot) -> Iterator[tuple[str, Text | str]]:
    yield "client", device.client + (f" ({device.profile})" if device.profile else "")
    yield "phase", _phase(device, state.time)
    yield "local epoch", _epoch(device)
    yield "emulated s", _seconds(device)
    yield (
        "local model",
        f"loss {format_number(device.loss, '.4f')}, "
        f"accuracy {format_number(device.accuracy, '.4f')}",
    )
    yield "CPU", _cpu(device)
    yield "memory", _memory(device)
    yield "sent", _traffic(device.sent)
    yield "received", _traffic(device.received)
    if device.joules is not None:
        yield "energy", _energy(device)
    if any(value is not None for value in astuple(device.gpu)):
        yield "GPU", _gpu(device)
    if firing := [alert.name for alert in state.alerts if alert.client == device.client]:
        yield "alerts", Text(", ".join(firing), "bold red")


def _phase(device: DeviceState, now: float) -> Text:
    since = device.in_phase_since
    if since is None:
        return phase(device)
    at = time.strftime("%H:%M:%S", time.localtime(since))
    return phase(device).append(f" since {at}, for {now - since:.0f} s", "default")


def _epoch(device: DeviceState) -> str:
    of = f"{format_number(device.epoch, '.0f')} of {format_number(device.epochs, '.0f')}"
    return f"{of}, {format_number(device.speed, '.1f')} samples/s"


def _seconds(device: DeviceState) -> Text:
    """Return the seconds of the last local epoch; a real device has no target."""
    text = Text(format_number(device.epoch_seconds, ".2f"))
    if device.target_seconds is not None:
        text.append(f", target {device.target_seconds:.2f}, error ").append_text(error(device))
    if device.slowness is not None:
        text.append(f", {device.slowness:.2f} times the median client's wall time", "default")
    return text


def _cpu(device: DeviceState) -> Text:
    quota = bar(device.cpu_use).append(f" of its quota of {format_number(device.cpus, '.2f')} CPUs")
    return quota.append(
        f", throttled in {format_number(device.throttled, '.0%')} of periods, "
        f"{format_number(device.cpu_seconds, '.1f')} s used since it started"
    )


def _memory(device: DeviceState) -> Text:
    share = Text() if device.memory_use is None else bar(device.memory_use).append(", ")
    used, peak = (scaled(value, _MIB, ".0f") for value in (device.memory, device.memory_peak))
    limit = "no limit" if device.memory_limit is None else f"limit {device.memory_limit / _MIB:.0f}"
    killed = format_number(device.memory_kills, ".0f")
    started = f"since it started peak {peak}, {killed} killed for want of it"
    return share.append(f"{used} MiB, {limit}; {started}")


def _traffic(traffic: Traffic) -> str:
    mega = f"{scaled(traffic.bytes, 1e6, '.2f')} MB in the run's rounds"
    last_seconds = format_number(traffic.last_seconds, ".2f")
    last = f"{scaled(traffic.last_bytes, 1e6, '.2f')} MB in {last_seconds} s"
    return f"{mega}, the last {last}, now {scaled(traffic.rate, 1e3, '.0f')} kB/s"


def _energy(device: DeviceState) -> str:
    busy, idle = (scaled(joules, 1e3, ".2f") for joules in (device.busy_joules, device.idle_joules))
    watts = format_number(device.watts, ".1f")
    return (
        f"{scaled(device.joules, 1e3, '.2f')} kJ in the run's rounds, modelled: {busy} busy, "
        f"{idle} idle; now {watts} W"
    )


def _gpu(device: DeviceState) -> Text:
    gpu = device.gpu
    memory, total = (scaled(value, _MIB, ".0f") for value in (gpu.memory, gpu.memory_total))
    return bar(gpu.use).append(
        f", memory {memory} of {total} MiB, {format_number(gpu.watts, '.1f')} W"
    )
