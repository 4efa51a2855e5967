from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbench.host.studies.compare import (
    FEDERATION,
    METRICS,
    Comparison,
    Twins,
    compare,
    pair,
    table,
)
from fedbench.records.runs import Run

GOLDEN = Path(__file__).parents[2] / "golden" / "runs" / "20260102-030405-digits"

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def real() -> Run:
    """Two rounds; legacy-pc failed in the second."""
    return Run(GOLDEN)


@pytest.fixture
def twin(tmp_path: Path) -> Run:
    """The same run, for a test to change."""
    return Run(Path(shutil.copytree(GOLDEN, tmp_path / "twin")))


def edit(run: Run, change: Change) -> None:
    """Changes each round of a run."""
    file = run.path / "rounds.jsonl"
    rounds = [json.loads(line) for line in file.read_text().splitlines()]
    for record in rounds:
        change(record)
    file.write_text("".join(f"{json.dumps(record)}\n" for record in rounds))


def clients(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from record["clients"]


def dilate(run: Run, factor: float) -> None:
    """As an emulated run has it: wall seconds are longer, and run.json says by how much."""
    facts = run.facts().model_dump(exclude_unset=True) | {
        "emulation": {"dilation": factor, "targets": {}}
    }
    (run.path / "run.json").write_text(json.dumps(facts))

    def slow(record: dict[str, Any]) -> None:
        record["duration_seconds"] *= factor
        for client in clients(record):
            client["epoch_seconds"] = [s * factor for s in client["epoch_seconds"]]
            if client.get("evaluate_seconds"):
                client["evaluate_seconds"] *= factor

    edit(run, slow)


def find(twins: Twins, client: str, metric: str) -> Comparison:
    (found,) = (c for c in twins.comparisons if (c.client, c.metric) == (client, metric))
    return found


def test_a_run_is_its_own_twin(real: Run) -> None:
    twins = compare(real, real)
    assert twins.unpaired == []
    assert {one.error for one in twins.comparisons} == {0.0}
    assert {one.client for one in twins.comparisons} == {
        "laptop", "legacy-pc", "workstation", FEDERATION,
    }  # fmt: skip
    assert find(twins, "legacy-pc", "local epoch s").rounds == 1
    assert find(twins, FEDERATION, "round s").a == (22.5 + 9.0) / 2


def test_emulated_seconds_are_wall_seconds_by_the_dilation(real: Run, twin: Run) -> None:
    dilate(twin, 4.0)
    twins = compare(real, twin)
    assert all(one.error == pytest.approx(0) for one in twins.comparisons)
    back = compare(twin, real)  # each run has a dilation of its own
    assert all(one.error == pytest.approx(0) for one in back.comparisons)


def test_an_error_is_the_median_of_the_rounds_and_has_a_spread(real: Run, twin: Run) -> None:
    def slower(record: dict[str, Any]) -> None:
        factor = {1: 1.10, 2: 1.20}[record["round"]]
        for client in clients(record):
            client["epoch_seconds"] = [s * factor for s in client["epoch_seconds"]]

    edit(twin, slower)
    laptop = find(compare(real, twin), "laptop", "local epoch s")
    assert (laptop.a, laptop.rounds) == ((4.0 + 3.875) / 2, 2)
    assert laptop.b == pytest.approx((4.4 + 4.65) / 2)
    assert laptop.error == pytest.approx(15)
    assert laptop.spread == (pytest.approx(10), pytest.approx(20))
    assert find(compare(real, twin), "laptop", "CPU s").error == 0


def test_clients_of_other_names_are_found_by_their_device(real: Run, twin: Run) -> None:
    def rename(record: dict[str, Any]) -> None:
        for client in clients(record):
            client["client"] = {"laptop": "lab-3"}.get(client["client"], client["client"])

    edit(twin, rename)
    twins = compare(real, twin)
    assert twins.unpaired == []
    assert find(twins, "laptop", "CPU s").error == 0


def test_what_has_no_partner_is_said(real: Run, twin: Run) -> None:
    def change(record: dict[str, Any]) -> None:
        for client in clients(record):
            if client["client"] == "laptop":
                client |= {"client": "pi", "device": "raspberry-pi-4"}
            client["peak_memory_bytes"] = None
            client["upload_seconds"] = 0.5

    edit(twin, change)
    assert compare(real, twin).unpaired == [
        "legacy-pc: upload s: only in B",
        "legacy-pc: peak MiB: only in A",
        "workstation: upload s: only in B",
        "workstation: peak MiB: only in A",
        "client laptop: only in A",
        "client pi: only in B",
    ]


def test_other_experiments_and_rounds_are_said(real: Run, twin: Run) -> None:
    file = twin.path / "experiment.json"
    experiment = json.loads(file.read_text()) | {"local_epochs": 7, "description": "another"}
    file.write_text(json.dumps(experiment))
    edit(twin, lambda record: record.update(round=record["round"] + 10))
    twins = compare(real, twin)
    before = real.experiment().local_epochs
    assert twins.comparisons == []
    assert twins.unpaired[0] == f"experiment: local_epochs: {before} in A, 7 in B"
    assert f"{FEDERATION}: round s: no round in common" in twins.unpaired


def test_an_error_against_nothing_is_none(twin: Run) -> None:
    edit(twin, lambda record: record.update(server_accuracy=0.0))
    accuracy = find(compare(twin, twin), FEDERATION, "server accuracy")
    assert (accuracy.a, accuracy.error, accuracy.spread) == (0.0, None, None)
    _, rows = table(Twins(a="a", b="b", comparisons=[accuracy], unpaired=[]))
    assert rows == [(FEDERATION, "-", "server accuracy", "0", "0", "-", "-", "2")]


def test_a_row_has_a_signed_error(real: Run, twin: Run) -> None:
    edit(twin, lambda record: record.update(duration_seconds=record["duration_seconds"] * 0.9))
    header, rows = table(compare(real, twin))
    assert all(len(row) == len(header) for row in rows)
    assert rows[-2] == (
        FEDERATION, "-", "round s", "15.75", "14.18", "-10.0", "-10.0 to -10.0", "2",
    )  # fmt: skip


def test_a_client_that_never_answered_has_no_figures(real: Run, twin: Run) -> None:
    def silence(record: dict[str, Any]) -> None:
        for client in clients(record):
            if client["client"] == "laptop":
                kept = {key: client[key] for key in ("client", "device")}
                client.clear()
                client.update(kept, error="train: no answer")

    edit(twin, silence)
    missing = [line for line in compare(real, twin).unpaired if line.startswith("laptop: ")]
    assert "laptop: local epoch s: only in A" in missing
    assert all(line.endswith("only in A") for line in missing)
    assert len(missing) <= len(METRICS)


NAMED = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d", "e"]), st.sampled_from(["laptop", "pi", "phone"])
)


@given(NAMED, NAMED)
def test_no_client_has_two_partners_and_none_is_left_that_fits(
    a: dict[str, str], b: dict[str, str]
) -> None:
    pairs = pair(a, b)
    assert pairs.keys() <= a.keys()
    assert len(set(pairs.values())) == len(pairs)
    assert set(pairs.values()) <= b.keys()
    assert all(pairs[name] == name for name in a.keys() & b.keys())
    assert all(a[name] == b[other] for name, other in pairs.items() if name != other)
    left = ({a[n] for n in a.keys() - pairs.keys()}, {b[n] for n in b.keys() - {*pairs.values()}})
    assert not left[0] & left[1]


@settings(max_examples=25, deadline=None)
@given(st.floats(1, 50), st.lists(st.floats(0.5, 2), min_size=2, max_size=2))
def test_errors_do_not_depend_on_the_dilation(
    tmp_path_factory: pytest.TempPathFactory, dilation: float, factors: list[float]
) -> None:
    folder = tmp_path_factory.mktemp("twins")
    run = Run(Path(shutil.copytree(GOLDEN, folder / "twin")))

    def change(record: dict[str, Any]) -> None:
        record["duration_seconds"] *= factors[record["round"] - 1]

    edit(run, change)
    dilate(run, dilation)
    found = find(compare(Run(GOLDEN), run), FEDERATION, "round s")
    errors = [100 * (factor - 1) for factor in factors]
    assert found.error == pytest.approx(median(errors), abs=1e-6)
    assert found.spread == pytest.approx((min(errors), max(errors)), abs=1e-6)
