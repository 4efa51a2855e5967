"""Where training stops on bad networks: the sweeps of arXiv 2605.03870 in small.

That paper found Flower's training to fail at a one-way latency of 5 s, above a packet loss of 50 %,
and with 90 % of clients dropping out. Here a server and three clients are processes on this
computer, each client behind a network of its own (tests/lib/bad_network.py): our node, and the
stock flower-supernode with the same ClientApp. Each runs three rounds that only change 10 kB of
weights. A run begins with the clients' first connection; absences begin with the first round, and
there our node, which is fast, runs a hundred.

Rows say the worst network on which all rounds were done; runs/bench/lossy.md has every cell.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal, get_args

from loopback import ROOT, Loopback
from row import Row, hardware

from fedbench.records.runs import Run

sys.path.append(str(Path(__file__).resolve().parents[1] / "lib"))

from bad_network import Conditions, can_be_made

Sweep = Literal["latency", "loss", "dropout"]
Who = Literal["ours", "stock", "ours, 12 s"]

ROUNDS = 3
# Absences come and go in slots of 15 s: three of our node's rounds would be over in the first.
MANY_ROUNDS = 100
MEGABYTES = 0.01  # eight packets: TCP sends ten before it waits for an acknowledgement
DELAY = 0.02  # s one way, where latency is not what is looked at
SWEEPS: dict[Sweep, Sequence[float]] = {
    "latency": (0.0, 0.3, 1.0, 2.0, 5.0, 10.0),  # s one way
    "loss": (0.0, 0.1, 0.3, 0.5, 0.6, 0.7),
    "dropout": (0.0, 0.3, 0.6, 0.9),
}
UNITS: dict[Sweep, tuple[float, str]] = {
    "latency": (1, "s"),
    "loss": (100, "%"),
    "dropout": (100, "%"),
}
# After which a client counts as lost. The default is 12: between two of a packet's retransmissions
# there is more where half of them are lost. So the sweep of losses has both.
SILENCE_SECONDS = 120.0
LIMIT_SECONDS = 240.0
LONGEST_SECONDS = 840.0
WHOLE_SECONDS = 1500.0  # then no cell is begun any more
LOOK_SECONDS = 0.2
AT_ONCE = 3  # where most of the time is waiting
FILE = ROOT / "runs/bench/lossy"


@dataclass(frozen=True)
class Cell:
    """One run of one node on one network.

    `ended` is what the run says of itself, or `out of time`. `rounds` were done of those that were
    `asked` for, and in `complete` of them all clients did their work. `restarts` counts the clients
    that ended and were begun anew.
    """

    sweep: Sweep
    value: float
    who: Who
    ended: str
    rounds: int
    asked: int
    complete: int
    round_seconds: float | None
    seconds: float
    restarts: int
    lost_packets: int
    reason: str


def conditions(sweep: Sweep, value: float) -> Conditions:
    """Return the network of a cell."""
    if sweep == "latency":
        return Conditions(delay=value)
    if sweep == "loss":
        return Conditions(delay=DELAY, loss=value)
    return Conditions(delay=DELAY, away=value)


def limit(network: Conditions) -> float:
    """Return how many seconds a cell may take: to be slow is no failure."""
    return min(LIMIT_SECONDS + 120 * network.delay, LONGEST_SECONDS)


def works(network: Conditions, who: Who) -> bool:
    """Return whether a cell takes CPU time for most of its time.

    The stock node's does: it starts a process for each message, unless none comes through.
    """
    return who == "stock" and network.delay < 5 and network.loss < 0.5


def measure(sweep: Sweep, value: float, who: Who, folder: Path) -> Cell:
    """Run one cell; its logs are in `folder`."""
    network = conditions(sweep, value)
    with Loopback(folder, "stock" if who == "stock" else "fedbench", network) as federation:
        began = time.monotonic()
        run = federation.launch(**_experiment(network, who))
        _follow(run, federation, began + limit(network))
        return _cell(sweep, value, who, run, federation, time.monotonic() - began)


def _experiment(network: Conditions, who: Who) -> dict[str, Any]:
    patient = {"silence_seconds": SILENCE_SECONDS} if network.loss and who != "ours, 12 s" else {}
    return {
        "task": "noop",
        "noop_megabytes": MEGABYTES,
        "model": "mobilenet_v3_small",
        "rounds": MANY_ROUNDS if network.away and who != "stock" else ROUNDS,
        "wait_for_clients_seconds": limit(network) / 2,
        "round_timeout_seconds": 120 + 24 * network.delay,
        **patient,
    }


def _follow(run: Run, federation: Loopback, deadline: float) -> None:
    """Keep the clients alive until the run has ended or its time is up."""
    leaving = False
    while time.monotonic() < deadline and not run.has_ended():
        federation.look_after()
        if not leaving and _said(run, "round"):
            leaving = True
            for client in federation.clients:
                client.network.leave_now_and_then()
        time.sleep(LOOK_SECONDS)


def _cell(
    sweep: Sweep, value: float, who: Who, run: Run, federation: Loopback, seconds: float
) -> Cell:
    records, clients = run.rounds(), federation.clients
    complete = [
        record
        for record in records
        if sum(client.error is None for client in record.clients) == len(clients)
    ]
    return Cell(
        sweep=sweep,
        value=value,
        who=who,
        ended=run.state() if run.has_ended() else "out of time",
        rounds=len(records),
        asked=run.experiment().rounds,
        complete=len(complete),
        round_seconds=median(r.duration_seconds for r in records) if records else None,
        seconds=seconds,
        restarts=sum(client.begun - 1 for client in clients),
        lost_packets=sum(client.network.lost for client in clients),
        reason=_reason(run),
    )


def _said(run: Run, event: str) -> list[dict[str, Any]]:
    return [each for each in run.events() if each["event"] == event]


def _reason(run: Run) -> str:
    """Return the last thing that went wrong, in the run's own words."""
    if run.has_ended() and (error := run.summary().error):
        return error
    failed = [*_said(run, "unidentified"), *_said(run, "failed")]
    if failed:
        return f"{failed[-1].get('client', 'a node')}: {failed[-1]['reason']}"
    if not _said(run, "round"):
        waiting = _said(run, "waiting")
        connected = waiting[-1]["connected"] if waiting else []
        return f"{len(connected)} of 3 clients were there"
    return ""


def rows(command: str) -> Iterator[Row]:
    if not can_be_made():
        raise PermissionError("a bad network needs root, and a kernel with TUN devices")
    cells: list[Cell] = []
    for cell in _measured():
        cells.append(cell)
        FILE.parent.mkdir(parents=True, exist_ok=True)
        FILE.with_suffix(".json").write_text(json.dumps([asdict(c) for c in cells], indent=2))
        FILE.with_suffix(".md").write_text(table(cells))
        print(f"{cell.sweep} {shown(cell.sweep, cell.value)} {cell.who}: {told(cell)}", flush=True)
    for sweep in get_args(Sweep):
        worst = {who: _worst(cells, sweep, who) for who in get_args(Who)}
        scale, unit = UNITS[sweep]
        ours, peer = scale * worst["ours"], scale * worst["stock"]
        yield Row(
            name=f"lossy_{sweep}",
            value=ours,
            unit=unit,
            peer=peer,
            ratio=ours / peer if peer else None,
            n=1,
            spread=(ours, ours),
            command=command,
            hardware=hardware(),
        )


def _measured() -> Iterator[Cell]:
    """Yield all cells: of those that work one at a time, of others several, the longest first."""
    wanted: dict[tuple[Conditions, Who], tuple[Sweep, float, Who]] = {}
    for sweep, value, who in _all():  # without losses is without absences
        wanted.setdefault((conditions(sweep, value), who), (sweep, value, who))
    longest_first = sorted(wanted.items(), key=lambda item: -limit(item[0][0]))
    deadline = time.monotonic() + WHOLE_SECONDS
    with (
        tempfile.TemporaryDirectory(prefix="fedbench-lossy-") as folder,
        ThreadPoolExecutor(1) as working,
        ThreadPoolExecutor(AT_ONCE) as waiting,
    ):

        def measured(number: int, sweep: Sweep, value: float, who: Who) -> Cell | None:
            if time.monotonic() > deadline:
                return None
            return measure(sweep, value, who, Path(folder) / str(number))

        futures: list[Future[Cell | None]] = []
        for number, (what, cell) in enumerate(longest_first):
            pool = working if works(*what) else waiting
            futures.append(pool.submit(measured, number, *cell))
        try:
            for future in as_completed(futures):
                if done := future.result():
                    yield done
        finally:
            for future in futures:
                future.cancel()


def _all() -> Iterator[tuple[Sweep, float, Who]]:
    for sweep, values in SWEEPS.items():
        for value in values:
            yield sweep, value, "ours"
            yield sweep, value, "stock"
            if sweep == "loss" and value:
                yield sweep, value, "ours, 12 s"


def _worst(cells: Iterable[Cell], sweep: Sweep, who: Who) -> float:
    """Return the worst network on which a node did all rounds, and on all that are better."""
    worst = 0.0
    for cell in sorted(cells, key=lambda cell: cell.value):
        if (cell.sweep, cell.who) == (sweep, who):
            if cell.ended != "finished":
                break
            worst = cell.value
    return worst


def shown(sweep: Sweep, value: float) -> str:
    scale, unit = UNITS[sweep]
    return f"{scale * value:g} {unit}"


def told(cell: Cell) -> str:
    """Say in a few words how a cell ended."""
    each = f", {cell.round_seconds:.1f} s a round" if cell.round_seconds else ""
    again = f", {cell.restarts} restarts" if cell.restarts else ""
    why = f": {cell.reason}" if cell.reason else ""
    took = f" after {cell.seconds:.0f} s"
    rounds = f"{cell.rounds} of {cell.asked} rounds, {cell.complete} with all clients"
    return f"{cell.ended}{took}, {rounds}{each}{again}{why}"


def table(cells: Sequence[Cell]) -> str:
    """Return the cells as Markdown."""
    columns = ("network", "node", "run", "rounds", "with all 3", "s / round", "s", "restarts")
    lines = ["| " + " | ".join([*columns, "last thing that went wrong"]) + " |"]
    lines.append("|---|---|---|--:|--:|--:|--:|--:|---|")
    order = list(get_args(Sweep))
    for cell in sorted(cells, key=lambda c: (order.index(c.sweep), c.value, c.who)):
        each = "-" if cell.round_seconds is None else f"{cell.round_seconds:.1f}"
        values = (
            f"{cell.sweep} {shown(cell.sweep, cell.value)}",
            cell.who,
            cell.ended,
            f"{cell.rounds} of {cell.asked}",
            cell.complete,
            each,
            f"{cell.seconds:.0f}",
            cell.restarts,
            cell.reason.replace("|", "/")[:140],
        )
        lines.append("| " + " | ".join(map(str, values)) + " |")
    return "\n".join(lines) + "\n"
