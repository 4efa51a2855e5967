"""Every metric, declared once, as data: METRICS.md lists it, other modules fill it.

Prometheus adds `client` and `device` to what it scrapes from a client; a metric itself carries only
`run`, and only where it describes that run. The round number is a value, never a label: each new
label value is a new time series. For the same reason a new run drops the previous run's series
where they are exposed; Prometheus keeps their history.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedbench.records import RoundParts

Kind = Literal["gauge", "counter", "histogram"]
ROUND_PARTS = tuple(RoundParts.model_fields)
# From an epoch of digits on a workstation to one of CIFAR-10 on a slowed legacy PC.
SECONDS_BUCKETS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)
# From a few numbers on a fast link to a large model on a slow one.
TRANSFER_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)

_REAL = "on a real device"
_NO_WATTS = "the device's profile has no watts"
_NO_GPU = "no GPU, or NVML does not say"
_UNKNOWN = "no client evaluated"
_SO_FAR = "in the run's rounds so far, as far as the server has seen them."


@dataclass(frozen=True)
class DeclaredMetric:
    """One metric: `name` is that of its samples, so that a counter's ends in `_total`.

    `absent` says when it is not there; one with the label `run` is never there before a run.
    """

    name: str
    kind: Kind
    unit: str
    help: str
    labels: tuple[str, ...] = ()
    absent: str = ""
    buckets: tuple[float, ...] = ()


def _gauge(name: str, unit: str, text: str, *labels: str, absent: str = "") -> DeclaredMetric:
    return DeclaredMetric(f"fedbench_{name}", "gauge", unit, text, labels, absent)


def _counter(name: str, unit: str, text: str, *labels: str, absent: str = "") -> DeclaredMetric:
    return DeclaredMetric(f"fedbench_{name}_total", "counter", unit, text, labels, absent)


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> DeclaredMetric:
    return DeclaredMetric(f"fedbench_{name}", "histogram", "seconds", text, labels, buckets=buckets)


CLIENT = (
    _gauge(
        "client_connected",
        "bool",
        "1 while the server takes what it announces, else 0.",
    ),
    _gauge("client_phase", "bool", "1 for the phase that the client is in, else 0.", "phase"),
    _counter("client_phase_seconds", "seconds", "Time spent in each phase.", "phase"),
    _counter("client_errors", "messages", "Messages answered with an error."),
    _gauge("client_round", "round", "Round last worked on.", "run"),
    _gauge("local_epoch", "epoch", "Local epoch last worked on, from 1.", "run"),
    _gauge("local_epochs", "epochs", "Local epochs in each round.", "run"),
    _histogram("local_epoch_seconds", "Duration of local epochs.", SECONDS_BUCKETS),
    _gauge(
        "local_epoch_last_seconds", "seconds", "Duration of the last finished local epoch.", "run"
    ),
    _gauge("partition_samples", "samples", "Training samples of this client."),
    _counter("trained_samples", "samples", "Samples trained."),
    _gauge(
        "samples_per_second",
        "samples/s",
        "Samples trained per second of the local epoch, waits for the emulated device included.",
        "run",
    ),
    _gauge("local_loss", "loss", "Training loss of the last local epoch.", "run"),
    _gauge("local_accuracy", "ratio", "Training accuracy of the last local epoch, 0 to 1.", "run"),
    _gauge(
        "global_model_loss", "loss", "Loss of the global model as this client evaluated it.", "run"
    ),
    _gauge(
        "global_model_accuracy", "ratio", "Accuracy of the global model likewise, 0 to 1.", "run"
    ),
    _gauge(
        "evaluation_last_seconds",
        "seconds",
        "Duration of the last evaluation by this client.",
        "run",
    ),
    _counter("sent_bytes", "bytes", "Bytes sent to the server."),
    _counter("received_bytes", "bytes", "Bytes received from the server."),
    _histogram(
        "transfer_seconds",
        "Duration of exchanges with the server, of models and of messages without one.",
        TRANSFER_BUCKETS,
        "direction",
    ),
    _gauge(
        "transfer_last_seconds",
        "seconds",
        "Duration of the last exchange with the server that carried a model.",
        "direction",
        absent="before the first",
    ),
    _gauge(
        "transfer_last_bytes",
        "bytes",
        "Bytes of the last exchange with the server that carried a model.",
        "direction",
        absent="before the first",
    ),
    _gauge(
        "client_dilation",
        "ratio",
        "Wall seconds for each second of the emulated device; 1 on a real one.",
    ),
    _gauge(
        "pace_late_seconds",
        "seconds",
        "Seconds by which the local epoch is behind the emulated device; 0 while it keeps up.",
        "run",
        absent=_REAL,
    ),
    _gauge(
        "emulated_samples_per_second",
        "samples/s",
        "Samples per emulated second of the last finished local epoch.",
        "run",
        absent=_REAL,
    ),
    _gauge(
        "target_samples_per_second",
        "samples/s",
        "What the real device trains, by its profile.",
        "run",
        absent=_REAL,
    ),
    _gauge(
        "speed_error_ratio",
        "ratio",
        "How far the emulated speed was from its target: 0.05 is five percent too fast.",
        "run",
        absent=_REAL,
    ),
    _counter(
        "energy_joules",
        "joules",
        "Modelled energy of the client's part of its emulated device: busy while it trains or "
        "evaluates, else idle.",
        "state",
        absent=_NO_WATTS,
    ),
    _gauge(
        "device_watts",
        "watts",
        "What the client draws by its device's profile, idle and busy; clients of one computer "
        "share its watts, those of work with as many as are busy now.",
        "state",
        absent=_NO_WATTS,
    ),
    _gauge("process_resident_bytes", "bytes", "Resident memory of the process that trains."),
    _gauge("process_threads", "threads", "Threads of the process that trains."),
    _gauge("gpu_use_ratio", "ratio", "Share of time in which the GPU worked.", absent=_NO_GPU),
    _gauge("gpu_memory_bytes", "bytes", "Memory of the GPU in use.", absent=_NO_GPU),
    _gauge("gpu_memory_total_bytes", "bytes", "Memory of the GPU.", absent=_NO_GPU),
    _gauge("gpu_power_watts", "watts", "What the GPU draws.", absent=_NO_GPU),
)

CONTAINER = (
    _counter("cpu_seconds", "seconds", "CPU time used."),
    _counter(
        "cpu_throttled_seconds",
        "seconds",
        "Time for which the CPU quota held threads back, added up over CPUs; 0 for clients of one "
        "computer, whose common quota is not the container's own.",
    ),
    _counter(
        "cpu_throttled_periods",
        "periods",
        "Scheduler periods in which the quota ran out; 0 for clients of one computer likewise.",
    ),
    _counter("cpu_periods", "periods", "Scheduler periods with work to do."),
    _counter(
        "cpu_steal_seconds",
        "seconds",
        "Time for which the hypervisor kept this container's CPUs, as the mean over them.",
    ),
    _gauge(
        "usable_cpus",
        "CPUs",
        "CPUs that may be busy at once: the quota or the cpuset, whichever is less; of clients of "
        "one computer, each has all of it.",
    ),
    _gauge("memory_bytes", "bytes", "Memory used, without idle file cache."),
    _gauge("memory_peak_bytes", "bytes", "Most memory ever used, file cache included."),
    _gauge("memory_limit_bytes", "bytes", "Memory limit.", absent="there is no limit"),
    _counter(
        "out_of_memory_kills",
        "processes",
        "Processes killed because the memory limit was reached.",
    ),
)

SERVER = (
    _gauge("run_info", "bool", "1, for what a run is of.", "run", "experiment", "profile", "model"),
    _gauge("run_phase", "bool", "1 for the phase that the run is in, else 0.", "run", "phase"),
    _gauge(
        "run_start_timestamp_seconds",
        "seconds",
        "Time, since 1970, at which the run started, or went on where it was resumed.",
        "run",
    ),
    _gauge(
        "progress_timestamp_seconds",
        "seconds",
        "Time, since 1970, of the run's last sign of progress: a reply, a round begun or recorded.",
        "run",
        absent="no run is going on",
    ),
    _gauge("round", "round", "Round in progress, or the last one.", "run"),
    _gauge("rounds", "rounds", "Rounds that the run wants.", "run"),
    _gauge("round_recorded", "round", "Last round that is over and recorded.", "run"),
    _histogram("round_seconds", "Duration of the run's rounds.", SECONDS_BUCKETS, "run"),
    _gauge("round_last_seconds", "seconds", "Duration of the last round.", "run"),
    _gauge(
        "round_overhead_seconds",
        "seconds",
        "Duration of the last round less its slowest client's training and evaluation.",
        "run",
    ),
    _gauge(
        "round_part_seconds",
        "seconds",
        "Part of the last round's overhead; not a number where it is not known.",
        "run",
        "part",
    ),
    _gauge("aggregate_seconds", "seconds", "Duration of the last aggregation.", "run"),
    _gauge(
        "server_epoch_seconds",
        "seconds",
        "Duration of the server's last evaluation.",
        "run",
        absent=_UNKNOWN,
    ),
    _gauge(
        "server_accuracy",
        "ratio",
        "Accuracy of the global model after the last round, 0 to 1.",
        "run",
        absent=_UNKNOWN,
    ),
    _gauge(
        "server_loss",
        "loss",
        "Loss of the global model after the last round.",
        "run",
        absent=_UNKNOWN,
    ),
    _gauge("clients_wanted", "clients", "Clients asked in the last round.", "run"),
    _gauge("clients_answered", "clients", "Those that answered in time.", "run"),
    _gauge("clients_failed", "clients", "Those that answered with an error or were lost.", "run"),
    _gauge("clients_late", "clients", "Those that had not answered when time was up.", "run"),
    _gauge("clients_connected", "clients", "Clients that the server can reach."),
    _gauge(
        "client_present",
        "bool",
        "1 while the client is connected, 0 after it left.",
        "client",
        "device",
        absent="ten minutes after it left",
    ),
    _counter("client_joined", "clients", "Clients that joined, each anew when it starts again."),
    _counter(
        "client_lost",
        "times",
        "How often the client went without a goodbye.",
        "client",
        absent="before a client joined",
    ),
    _counter(
        "client_missing",
        "rounds",
        "How often the client was missing in a round, of which each attempt counts, by the reason.",
        "client",
        "reason",
        absent="before a client was missing",
    ),
    _counter("waited_for_clients_seconds", "seconds", "Time that runs waited for clients to come."),
    _gauge("dilation", "ratio", "Wall seconds for each second of the emulated devices.", "run"),
    _gauge(
        "run_emulated_seconds",
        "seconds",
        "Duration of the rounds, in seconds of the emulated devices, added up, " + _SO_FAR,
        "run",
    ),
    _gauge(
        "emulated_epoch_seconds",
        "seconds",
        "Median local epoch of the last round, in seconds of the emulated device.",
        "run",
        "client",
    ),
    _gauge(
        "target_epoch_seconds",
        "seconds",
        "What such an epoch takes on the real device, by its profile.",
        "run",
        "client",
        absent=_REAL,
    ),
    _gauge(
        "emulation_error_ratio",
        "ratio",
        "How far the median epoch was from its target: 0.05 is five percent too slow.",
        "run",
        "client",
        absent=_REAL,
    ),
    _gauge(
        "emulation_held",
        "bool",
        "1 where the emulation held in the last round, 0 where it was too far off its target.",
        "run",
        "client",
        absent=_REAL,
    ),
    _gauge(
        "round_energy_joules",
        "joules",
        "Modelled energy of the client's part of its emulated device in the last round, idle and "
        "busy.",
        "run",
        "client",
        absent=_NO_WATTS,
    ),
    _gauge(
        "run_energy_joules",
        "joules",
        "Modelled energy of the client's part of its emulated device, busy while it trained or "
        f"evaluated, else idle, {_SO_FAR}",
        "run",
        "client",
        "state",
        absent=_NO_WATTS,
    ),
    _gauge(
        "run_bytes",
        "bytes",
        f"Bytes that the client sent and received {_SO_FAR}",
        "run",
        "client",
        "direction",
        absent="the client does not count them, as the stock node",
    ),
    _gauge(
        "run_samples",
        "samples",
        f"Samples trained {_SO_FAR}",
        "run",
        "client",
        absent="before the client trained",
    ),
    _gauge(
        "run_late_seconds",
        "seconds",
        "Emulated seconds by which local epochs ended later than their targets, added up, "
        f"{_SO_FAR}",
        "run",
        "client",
        absent=_REAL,
    ),
)

# What a client has whose node is Flower's: that trains in processes which tell nobody.
STOCK = tuple(
    metric
    for metric in CLIENT
    if metric.name in ("fedbench_client_connected", "fedbench_client_dilation")
    or metric.name.startswith("fedbench_gpu_")
)

METRICS = {metric.name: metric for metric in (*CLIENT, *CONTAINER, *SERVER)}
