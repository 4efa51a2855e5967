from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fedbench.flower.bundles import HOLD_HEADER
from fedbench.flower.longpoll import LongPoll


class Mailbox:
    """Answers a poll with the messages that were pushed, and counts the questions."""

    def __init__(self, status: int = 200) -> None:
        self.messages: list[bytes] = []
        self.questions: list[bytes] = []
        self.status = status

    async def pull(self, request: Request) -> Response:
        self.questions.append(await request.body())
        answer, self.messages = b"".join(self.messages), []
        return Response(answer, status_code=self.status)

    async def push(self, request: Request) -> Response:
        self.messages.append(await request.body())
        return Response()

    def app(self, hold: float) -> LongPoll:
        routes = [
            Route("/pull", self.pull, methods=["POST"]),
            Route("/push", self.push, methods=["POST"]),
            Route("/other", self.push, methods=["POST"]),
        ]
        return LongPoll(Starlette(routes=routes), {"/pull": "/push"}, hold)


Talk = Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]]


def talk(app: LongPoll, conversation: Talk) -> None:
    async def run() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            await asyncio.wait_for(conversation(client), 10)

    asyncio.run(run())


def test_a_message_that_is_there_is_handed_out_at_once() -> None:
    mailbox = Mailbox()

    async def conversation(client: httpx.AsyncClient) -> None:
        await client.post("/push", content=b"news")
        answer = await client.post("/pull", content=b"who")
        assert answer.content == b"news"

    talk(mailbox.app(hold=60), conversation)
    assert mailbox.questions == [b"who"]


@pytest.mark.parametrize("seconds", ["0", "0.01", "-1", "nan"])
def test_a_poll_is_held_back_for_no_longer_than_its_sender_can_wait(seconds: str) -> None:
    mailbox = Mailbox()

    async def conversation(client: httpx.AsyncClient) -> None:
        answer = await client.post("/pull", headers={HOLD_HEADER: seconds})
        assert answer.content == b""

    talk(mailbox.app(hold=60), conversation)


@pytest.mark.parametrize("seconds", ["100", "soon"])
def test_a_poll_is_held_back_for_no_longer_than_the_server_holds_any(seconds: str) -> None:
    async def conversation(client: httpx.AsyncClient) -> None:
        answer = await client.post("/pull", headers={HOLD_HEADER: seconds})
        assert answer.content == b""

    talk(Mailbox().app(hold=0.01), conversation)


def test_an_empty_answer_waits_for_news() -> None:
    mailbox = Mailbox()

    async def conversation(client: httpx.AsyncClient) -> None:
        poll = asyncio.create_task(client.post("/pull", content=b"who"))
        while not mailbox.questions:
            await asyncio.sleep(0)
        await client.post("/other", content=b"of no interest yet: ")
        assert not poll.done()
        await client.post("/push", content=b"news")
        assert (await poll).content == b"of no interest yet: news"

    talk(mailbox.app(hold=60), conversation)
    assert mailbox.questions == [b"who", b"who"]


def test_all_who_wait_are_told() -> None:
    mailbox = Mailbox()

    async def conversation(client: httpx.AsyncClient) -> None:
        polls = [asyncio.create_task(client.post("/pull", content=b"%d" % n)) for n in range(3)]
        while len(mailbox.questions) < 3:
            await asyncio.sleep(0)
        await client.post("/push", content=b"news")
        answers = [(await poll).content for poll in polls]
        assert sorted(answers) == [b"", b"", b"news"]

    talk(mailbox.app(hold=60), conversation)


def test_without_news_it_answers_with_nothing_after_a_while() -> None:
    mailbox = Mailbox()

    async def conversation(client: httpx.AsyncClient) -> None:
        answer = await client.post("/pull", content=b"who")
        assert (answer.status_code, answer.content) == (200, b"")

    talk(mailbox.app(hold=0.01), conversation)
    assert mailbox.questions == [b"who"]


@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_refusal_is_not_held_back(status: int) -> None:
    mailbox = Mailbox(status)

    async def conversation(client: httpx.AsyncClient) -> None:
        assert (await client.post("/pull")).status_code == status

    talk(mailbox.app(hold=60), conversation)
