"""The checks of what Prometheus has of a run find what is wrong, and nothing where all is well."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from plausibility import (
    ONLY_GROW,
    History,
    Rows,
    falls,
    means,
    power,
    samples_that_grow,
    shares,
    speeds,
)

from fedbench.records import ClientRound, RoundRecord, Summary
from fedbench.telemetry.metrics import CLIENT, CONTAINER

TARGET, DILATION = 200.0, 2.0
OF_RUN = '{run="r1"}'
START = 1_800_000_000.0
PC = ClientRound(
    client="pc",
    device="pc",
    epoch_seconds=[4.0, 5.0],
    upload_seconds=0.5,
    download_seconds=0.25,
)
ROUND = RoundRecord(
    round=1,
    started_at="2027-01-15T08:00:00+00:00",
    server_accuracy=None,
    server_loss=None,
    server_epoch_seconds=None,
    duration_seconds=12.0,
    overhead_seconds=0.0,
    aggregate_seconds=0.0,
    clients=[PC],
)
SUMMARY = Summary(
    run="r1",
    status="finished",
    experiment="e",
    profile="p",
    started_at="2027-01-15T08:00:00+00:00",
    total_seconds=20.0,
    rounds=[ROUND],
)


class Recorded(History):
    """What Prometheus' API would answer, by expression: labels and the values of each second."""

    def __init__(self, answers: dict[str, list[tuple[dict[str, str], list[float]]]]) -> None:
        super().__init__("http://prometheus", SUMMARY)
        self.answers = answers

    def _get(self, path: str, **parameters: str | float) -> Rows:
        found = self.answers.get(str(parameters["query"]), [])
        if path == "query_range":
            return [
                {"metric": labels, "values": [[START + n, str(v)] for n, v in enumerate(values)]}
                for labels, values in found
            ]
        # Nothing was there when the run began.
        there = found if parameters["time"] == self.end else []
        return [{"metric": labels, "value": [self.end, str(v[-1])]} for labels, v in there]


def of_pc(*values: float, **labels: str) -> tuple[dict[str, str], list[float]]:
    return {"job": "clients", "client": "pc", **labels}, list(values)


def of_server(*values: float, **labels: str) -> tuple[dict[str, str], list[float]]:
    return {"job": "server", **labels}, list(values)


@pytest.fixture
def sound() -> Recorded:
    recorded = Recorded(
        {
            "fedbench_device_watts": [of_pc(40, 40, state="idle"), of_pc(130, 130, state="busy")],
            "client:fedbench_power:watts": [of_pc(40, 85, 130.5)],
            f"fedbench_target_samples_per_second{OF_RUN}": [of_pc(TARGET)],
            "fedbench_client_dilation": [of_pc(DILATION)],
            f"fedbench_samples_per_second{OF_RUN}": [of_pc(90, 149)],
            f"fedbench_emulated_samples_per_second{OF_RUN}": [of_pc(180, 299)],
            "fedbench_server_accuracy": [of_server(0, 1)],
            "fedbench_local_epoch_seconds_sum": [of_pc(9)],
            "fedbench_local_epoch_seconds_count": [of_pc(2)],
            "fedbench_transfer_seconds_sum": [of_pc(0.5, direction="sent")],
            "fedbench_transfer_seconds_count": [of_pc(1, direction="sent")],
            "fedbench_round_seconds_sum": [of_server(12, run="r1")],
            "fedbench_round_seconds_count": [of_server(1, run="r1")],
        }
    )
    for metric in ONLY_GROW:
        there = [of_pc(0)] if metric in CLIENT + CONTAINER else []
        there += [] if metric in CLIENT else [of_server(0)]
        recorded.answers |= {f"resets({name}[20s])": there for name in samples_that_grow(metric)}
    return recorded


@pytest.mark.parametrize("check", [falls, power, speeds, shares, means])
def test_nothing_is_wrong_with_a_sound_run(
    sound: Recorded, check: Callable[[History], Iterator[str]]
) -> None:
    assert list(check(sound)) == []


ENERGY = "resets(fedbench_energy_joules_total[20s])"
WRONG = [
    (falls, ENERGY, [of_pc(44)], "fedbench_energy_joules_total fell 44 times"),
    (falls, ENERGY, [], r"fedbench_energy_joules_total is missing of \['pc'\]"),
    (falls, "resets(fedbench_cpu_seconds_total[20s])", [of_pc(0)], r"is missing of \[''\]"),
    (power, "client:fedbench_power:watts", [of_pc(85, 12_000)], "1 of 2 values not within 39.6"),
    (power, "client:fedbench_power:watts", [], "is missing of"),
    (power, "fedbench_device_watts", [], "nothing to compare it with"),
    (speeds, f"fedbench_samples_per_second{OF_RUN}", [of_pc(151, 1000)], "2 of 2 values"),
    (speeds, f"fedbench_emulated_samples_per_second{OF_RUN}", [of_pc(301)], "within 0 to 300"),
    (shares, "fedbench_server_accuracy", [of_server(-0.1, 75)], "2 of 2 .* from -0.1 to 75"),
    (shares, "client:fedbench_cpu_use:ratio", [of_pc(1.07)], "1 of 1 values"),
    (means, "fedbench_round_seconds_sum", [of_server(15, run="r1")], "15.000 s at the mean, 12"),
    (means, "fedbench_local_epoch_seconds_sum", [of_pc(11)], "5.500 s at the mean, 5.000"),
    (means, "fedbench_transfer_seconds_sum", [of_pc(0.6, direction="sent")], "0.600 s at the mean"),
]


@pytest.mark.parametrize(("check", "query", "answer", "told"), WRONG)
def test_what_cannot_be_true_is_told(
    sound: Recorded,
    check: Callable[[History], Iterator[str]],
    query: str,
    answer: list[tuple[dict[str, str], list[float]]],
    told: str,
) -> None:
    assert query.startswith("client:") or query in sound.answers
    sound.answers[query] = answer

    with pytest.raises(AssertionError, match=told):
        assert "; ".join(check(sound)) == ""
