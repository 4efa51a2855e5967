from __future__ import annotations

import io
import time
from dataclasses import replace

from recorded import top_answers
from rich.console import Console

from fedbench.host.watch.top.detail import detail
from fedbench.host.watch.top.snapshot import snapshot
from fedbench.host.watch.top.state import Alert, DeviceState, GpuState, Snapshot, Traffic

EVERYTHING = DeviceState(
    "lap", "training", ((80.0, "waiting"), (90.0, "training")), "laptop",
    epoch=2, epochs=3, speed=41.25, epoch_seconds=2.2, target_seconds=2.0, slowness=1.5,
    loss=1.25, accuracy=0.625, cpus=0.5, cpu_seconds=123.4, cpu_use=0.5, throttled=0.25,
    memory=300 * 2**20, memory_peak=350 * 2**20, memory_limit=400 * 2**20, memory_use=0.75,
    memory_kills=2, sent=Traffic(125e3, 18e6, 9e6, 2.25), received=Traffic(0, 9e6, 9e6, 1),
    watts=42.5, idle_joules=250, busy_joules=1000,
    gpu=GpuState(use=0.75, memory=3 * 2**20, memory_total=8 * 2**20, watts=61.5),
)  # fmt: skip


def lines(device: DeviceState, *alerts: Alert, width: int = 120) -> dict[str, str]:
    """The text of each topic."""
    output = io.StringIO()
    state = Snapshot(100.0, (), None, (device,), alerts)
    console = Console(file=output, width=width, color_system=None)
    console.print(detail(device, state))
    rows = (line.split("  ", 1) for line in output.getvalue().splitlines())
    return {topic: text.strip() for topic, text in rows}


def test_everything_of_a_device() -> None:
    at = time.strftime("%H:%M:%S", time.localtime(90))
    assert lines(EVERYTHING, Alert("Straggler", "lap"), Alert("Straggler", "pc")) == {
        "client": "lap (laptop)",
        "phase": f"training since {at}, for 10 s",
        "local epoch": "2 of 3, 41.2 samples/s",
        "emulated s": "2.20, target 2.00, error +10.0%, 1.50 times the median client's wall time",
        "local model": "loss 1.2500, accuracy 0.6250",
        "CPU": "███░░░  50% of its quota of 0.50 CPUs, throttled in 25% of periods, "
        "123.4 s used since it started",
        "memory": "████░░  75%, 300 MiB, limit 400; since it started peak 350, "
        "2 killed for want of it",
        "sent": "18.00 MB in the run's rounds, the last 9.00 MB in 2.25 s, now 125 kB/s",
        "received": "9.00 MB in the run's rounds, the last 9.00 MB in 1.00 s, now 0 kB/s",
        "energy": "1.25 kJ in the run's rounds, modelled: 1.00 busy, 0.25 idle; now 42.5 W",
        "GPU": "████░░  75%, memory 3 of 8 MiB, 61.5 W",
        "alerts": "Straggler",
    }


def test_a_real_device_of_which_little_is_known() -> None:
    shown = lines(DeviceState("pi", phase="waiting", memory=2**20))
    assert shown.keys().isdisjoint({"energy", "GPU", "alerts"})
    assert shown["client"] == "pi"
    assert shown["phase"] == "waiting"
    assert shown["emulated s"] == "-"
    assert shown["memory"] == "1 MiB, no limit; since it started peak -, - killed for want of it"


def test_of_a_recorded_device_all_is_known() -> None:
    state = snapshot(*top_answers())
    for device in state.devices:
        shown = lines(replace(device, phases=()))
        assert "energy" in shown
        assert not any("- " in text or text == "-" for text in shown.values())
