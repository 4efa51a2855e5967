"""What of a ServerApp's connection is not seen from its grid: tests/server/test_grid.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from flwr.app import Message, RecordDict
from superlink import SuperLink

from fedbench.flower import runtime
from fedbench.flower.bundles import RefusedError
from fedbench.flower.runtime import RuntimeConnection


@pytest.fixture
def superlink() -> Iterator[SuperLink]:
    superlink = SuperLink()
    with superlink.reached():
        yield superlink


def test_a_reply_is_pulled_once(superlink: SuperLink) -> None:
    node = superlink.join()
    with closing(RuntimeConnection(superlink.grid)) as connection:
        (message_id,) = connection.push(runtime.pack([Message(RecordDict(), node, "train")]))
        assert connection.pull([message_id], 0) == []
        superlink.answer(node, lambda message: Message(RecordDict(), reply_to=message))

        (arrival,) = connection.pull([message_id], 0)

    assert arrival.reply_to == message_id


def test_a_grid_without_the_runs_token_is_refused(superlink: SuperLink) -> None:
    superlink.grid._token = "guessed"

    connection = RuntimeConnection(superlink.grid)
    with closing(connection), pytest.raises(RefusedError, match="401"):
        connection.pull(["0" * 64], 0)
