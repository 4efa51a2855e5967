from __future__ import annotations

import pytest

from fedbench.client.settings import Settings

ENVIRONMENT = {
    "FEDBENCH_CLIENT": "laptop-1",
    "FEDBENCH_DEVICE": "laptop",
    "FEDBENCH_SERVER": "server:9092",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("FEDBENCH_NODE", "FEDBENCH_METRICS_PORT", "FEDBENCH_THREADS", "FEDBENCH_LIMITED"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_settings_come_from_the_environment(environment: pytest.MonkeyPatch) -> None:
    settings = Settings.from_environment()

    assert (settings.client, settings.device, settings.server) == (
        "laptop-1",
        "laptop",
        "server:9092",
    )
    assert not settings.stock
    assert settings.metrics_port == 9101
    assert (settings.threads, settings.limited) == (None, False)


@pytest.mark.parametrize(("node", "stock"), [("stock", True), ("fedbench", False)])
def test_the_kind_of_node_and_the_port_can_be_set(
    environment: pytest.MonkeyPatch, node: str, stock: bool
) -> None:
    environment.setenv("FEDBENCH_NODE", node)
    environment.setenv("FEDBENCH_METRICS_PORT", "9200")

    assert Settings.from_environment().stock is stock
    assert Settings.from_environment().metrics_port == 9200


def test_each_start_is_an_instance_of_its_own(environment: pytest.MonkeyPatch) -> None:
    assert Settings.from_environment().instance != Settings.from_environment().instance


def test_the_client_app_is_told_who_it_is_and_where_its_data_are(
    environment: pytest.MonkeyPatch,
) -> None:
    assert Settings.from_environment().node_config() == {
        "client": "laptop-1",
        "device": "laptop",
        "data": "/data",
    }


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_what_has_to_be_set_is_named(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.delenv(name)

    with pytest.raises(KeyError, match=name):
        Settings.from_environment()


def test_the_plan_says_how_many_threads_and_that_there_is_a_quota(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setenv("FEDBENCH_THREADS", "4")
    environment.setenv("FEDBENCH_LIMITED", "1")

    settings = Settings.from_environment()
    assert (settings.threads, settings.limited) == (4, True)
