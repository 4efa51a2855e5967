from __future__ import annotations

import pytest

from fedbench.config import Device
from fedbench.host.plan.targets import ASSUMED, Assumed, loaded, speed, workload, workloads

PC = Device(
    name="pc",
    description="",
    cores=4,
    memory=2**30,
    speed={"mobilenet_v2": 222.0},
    capacity={"mobilenet_v2": 291.0},
)
PI = Device(name="pi", description="", cores=4, memory=2**30, speed={"mobilenet_v3_small": 55.0})
PLAIN = Device(name="plain", description="", cores=0.5, memory=2**30)
HOST = {"mobilenet_v2": Assumed(913.0), "mobilenet_v3_small": Assumed(1826.0)}


def test_the_workload_is_the_model_itself_where_its_speed_is_known() -> None:
    assert workload(PC, "mobilenet_v2") == "mobilenet_v2"
    assert workload(PC, "mobilenet_v1") == "mobilenet_v2"
    assert workload(PI, "mobilenet_v2") == "mobilenet_v3_small"
    assert workload(PLAIN, "mobilenet_v1") == "mobilenet_v1"


def test_the_host_is_calibrated_for_all_that_it_takes() -> None:
    assert workloads([PC, PI], "mobilenet_v1") == [
        "mobilenet_v1",
        "mobilenet_v2",
        "mobilenet_v3_small",
    ]


def test_a_known_speed_is_the_profiles() -> None:
    known = speed(PC, "mobilenet_v2", HOST)
    assert (known.single, known.together) == (222.0, 291.0)


def test_another_models_speed_is_predicted_from_the_hosts_own() -> None:
    predicted = speed(PC, "mobilenet_v3_small", HOST)
    assert (predicted.single, predicted.together) == pytest.approx((444.0, 582.0))
    assert speed(PI, "mobilenet_v2", HOST).single == pytest.approx(27.5)


def test_a_device_without_a_speed_has_the_hosts_cores() -> None:
    assert speed(PLAIN, "mobilenet_v2", HOST).single == pytest.approx(913.0 / 2)


def test_any_model_can_be_planned_with() -> None:
    own = Device(
        name="own", description="", cores=2, memory=2**30, speed={"sample:small_cnn": 90.0}
    )
    assert workload(own, "resnet18") == "sample:small_cnn"
    assert speed(own, "resnet18", ASSUMED).single == 90.0
    assert speed(PC, "resnet18", ASSUMED) == speed(PC, "mobilenet_v2", ASSUMED)
    assert speed(PLAIN, "resnet18", ASSUMED) == speed(PLAIN, "mobilenet_v2", ASSUMED)
    with pytest.raises(KeyError):
        speed(PC, "resnet18", HOST)  # measured: a gap is a defect


def test_busy_neighbours_cost_every_number_of_threads_alike() -> None:
    class Busy(Assumed):
        busy = 800.0

    assert loaded(Busy(1000.0)) == {
        n: pytest.approx(0.8 * s) for n, s in Assumed(1000.0).by_threads.items()
    }
    assert loaded(ASSUMED["mobilenet_v2"]) == ASSUMED["mobilenet_v2"].by_threads
