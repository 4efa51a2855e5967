"""What fedbench uses of Flower's internals is there: on an upgrade, all that moved at once."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import flwr
import pytest
from flower_internals import USED, imported, lacks, moved
from flower_versions import VERSIONS

ROOT = Path(__file__).parents[2]
PUBLIC = "flwr.app:"


@pytest.fixture(autouse=True)
def _in_a_run() -> None:
    """No message is made here: this test runs where fedbench.flower cannot be imported."""


def test_nothing_has_moved() -> None:
    lines = moved()

    assert not lines, "\n".join([f"of flwr {flwr.__version__}, fedbench.flower misses:", *lines])


def test_what_moved_is_named() -> None:
    """Else the test above could not fail."""
    assert list(lacks("flwr.gone:Name", [])) == ["the module is gone (No module named 'flwr.gone')"]
    assert list(lacks("flwr.app:Gone", [])) == ["the name is gone"]
    assert list(lacks("flwr.app:Error", ["code", "colour"])) == ["it takes no colour"]
    assert list(lacks("flwr.proto.node_pb2:Node", ["colour"])) == ["it takes no colour"]


def test_every_import_is_looked_at() -> None:
    names = imported()

    assert names["flwr.supernode.fleet_http_connection:http_request_response"] == ["fleet.py"]
    assert len([name for name in names if not name.startswith(PUBLIC)]) > 40
    assert set(USED) - set(names)  # methods, fields, and what strategies use


def test_flwr_is_the_one_that_was_asked_for() -> None:
    """`make test-flower` says which; otherwise it is the pinned one, the newest of the list."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = VERSIONS[-1]

    assert f"flwr=={pinned}" in project["optional-dependencies"]["node"]
    assert flwr.__version__ == os.environ.get("FEDBENCH_TEST_FLWR", pinned)
