"""SuperLink's answers to bundles: Flower's handlers, without a request for each object.

A node's pull brings the message's objects along, but for those that the node has; a push brings
them all. SuperLink forgets a message once it was answered, or once nobody wants the answer any
more. Requests in plain Flower go on to SuperLink's own application.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from fastapi import FastAPI, HTTPException
from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.run_pb2 import GetRunRequest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PushAppMessagesRequest
from flwr.proto.task_pb2 import Task
from flwr.supercore.constant import TASK_TOKEN_HEADER
from flwr.supercore.dependencies.task import authenticate_task
from flwr.supercore.error import FlowerError
from flwr.supercore.error.catalog import API_ERROR_MAP
from flwr.superlink.routers.fleet.node_auth import authenticate_node
from flwr.superlink.servicer.fleet import fleet_handlers
from flwr.superlink.servicer.runtime import runtime_handlers
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from fedbench.flower.bundles import (
    FLEET_PULL,
    FLEET_PUSH,
    FLEET_WANTED,
    MEDIA_TYPE,
    RUNTIME_OBJECTS,
    RUNTIME_PULL,
    RUNTIME_PUSH,
    RUNTIME_WITHDRAW,
    pack,
    unpack,
)
from fedbench.flower.longpoll import Scope, read_body
from fedbench.flower.messages import object_ids
from fedbench.flower.refusals import fail_asked
from fedbench.flower.whole import require_whole_push

Parts = list[bytes]
# What a bundle may make of its reader that is none, or not a whole one; NotWholeError is a
# ValueError, as is what Flower makes of a message that has no type.
_MALFORMED = (struct.error, DecodeError, LookupError, ValueError)


class Bundles:
    """An ASGI app around SuperLink's that understands bundles as well."""

    def __init__(self, superlink: FastAPI) -> None:
        self._superlink = superlink

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Serve one request."""
        handler = _HANDLERS.get(scope.get("path", ""))
        if handler is None or (b"content-type", MEDIA_TYPE.encode()) not in scope["headers"]:
            await self._superlink(scope, receive, send)
            return
        request = Request({**scope, "app": self._superlink, "state": {}})
        try:
            body = await read_body(receive)
            answer = await run_in_threadpool(_answer, request, body)
        except ClientDisconnect:
            return  # whoever it was may come again
        except FlowerError as error:
            await _refuse(send, API_ERROR_MAP[error.code].http_status_code, error.message)
        except HTTPException as error:
            await _refuse(send, error.status_code, str(error.detail))
        except _MALFORMED as error:
            await _refuse(send, 400, str(error))
        else:
            await _send(send, 200, pack(answer) if answer else [])


def _answer(request: Request, body: bytes) -> Parts:
    """Return the answer to a bundle; a push that is none fails what its node was asked."""
    path = request.scope["path"]
    try:
        return _HANDLERS[path](request, unpack(body))
    except _MALFORMED as error:
        if path == FLEET_PUSH:
            fail_asked(request, str(error))
        raise


def _fleet_pull(request: Request, parts: Parts) -> Parts:
    """(request, ids of objects that the node has) -> (answer, the other objects' contents)."""
    question = PullMessagesRequest.FromString(parts[0])
    state = _authenticated(request, question)
    answer = fleet_handlers.pull_messages(question, state, state.object_store)
    if not answer.messages_list:
        return []
    wanted = object_ids(answer.message_object_trees, without=parts[1].decode().split())
    run_id = answer.messages_list[0].metadata.run_id
    # Empty: still on its way from the ServerApp.
    contents = [state.get_object(run_id, object_id) or b"" for object_id in wanted]
    return [answer.SerializeToString(), *contents]


def _fleet_push(request: Request, parts: Parts) -> Parts:
    """(request, contents of the reply's objects) -> (answer)."""
    question = PushMessagesRequest.FromString(parts[0])
    state = _authenticated(request, question)
    require_whole_push(question, parts[1:])
    answer = fleet_handlers.push_messages(question, state)
    if answer.objects_to_push:  # else it is no reply to what this node was asked, or a second one
        metadata = question.messages_list[0].metadata
        _store(state, metadata.run_id, answer.session_id, question.message_object_trees, parts[1:])
        state.object_store.delete(metadata.reply_to_message_id)
    return [answer.SerializeToString()]


def _fleet_wanted(request: Request, parts: Parts) -> Parts:
    """(request, id of a message) -> (anything), or nothing where nobody wants its answer."""
    question = GetRunRequest.FromString(parts[0])
    state = _authenticated(request, question)
    fleet_handlers.get_run(question, state)  # refuses where the run is over
    return [b"wanted"] if parts[1].decode() in state.message_ins_store else []


def _runtime_push(request: Request, parts: Parts) -> Parts:
    """(request, contents of all messages' objects) -> (answer)."""
    state, task = _task(request)
    question = PushAppMessagesRequest.FromString(parts[0])
    answer = runtime_handlers.push_messages(question, state, task)
    _store(state, task.run_id, answer.session_id, question.message_object_trees, parts[1:])
    return [answer.SerializeToString()]


def _runtime_pull(request: Request, parts: Parts) -> Parts:
    """(request) -> (answer), or nothing while there is no reply.

    Objects are pulled one reply at a time: those of all clients at once might not fit into memory.
    Those of the message are forgotten: a node that is gone has not answered itself.
    """
    state, task = _task(request)
    answer = runtime_handlers.pull_messages(
        PullAppMessagesRequest.FromString(parts[0]), state, task
    )
    for reply in answer.messages_list:  # SuperLink's own, too: a node that is gone takes no message
        state.object_store.delete(reply.metadata.reply_to_message_id)
    return [answer.SerializeToString()] if answer.messages_list else []


def _runtime_objects(request: Request, parts: Parts) -> Parts:
    """(id of the reply, ids of its objects) -> (contents), and SuperLink forgets the reply.

    Nothing where one of them is gone; one empty part while one is still on its way.
    """
    state, task = _task(request)
    contents = [state.get_object(task.run_id, item) for item in parts[1].decode().split()]
    if None in contents:
        return []
    if not all(contents):
        return [b""]
    state.object_store.delete(parts[0].decode())
    return cast("Parts", contents)


def _runtime_withdraw(request: Request, parts: Parts) -> Parts:
    """(ids of messages, ids of replies that were pulled without their objects) -> ()."""
    state, task = _task(request)
    with state.lock:
        for message_id in parts[0].decode().split():
            _forget(state, task.run_id, message_id)
    for reply_id in parts[1].decode().split():
        state.object_store.delete(reply_id)
    return []


def _forget(state: Any, run_id: int, message_id: str) -> None:
    """Delete a message and the reply to it: a reply that comes later is one to nothing."""
    message = state.message_ins_store.get(message_id)
    if message is None or message.metadata.run_id != run_id:
        return
    reply_id = state.message_ins_id_to_message_res_id.get(message_id)
    state.delete_messages({message_id})
    state.object_store.delete(message_id)
    if reply_id:
        state.object_store.delete(reply_id)


_HANDLERS: dict[str, Callable[[Request, Parts], Parts]] = {
    FLEET_PULL: _fleet_pull,
    FLEET_PUSH: _fleet_push,
    FLEET_WANTED: _fleet_wanted,
    RUNTIME_PUSH: _runtime_push,
    RUNTIME_PULL: _runtime_pull,
    RUNTIME_OBJECTS: _runtime_objects,
    RUNTIME_WITHDRAW: _runtime_withdraw,
}


def _authenticated(request: Request, question: Any) -> Any:
    """Return SuperLink's state, if the node is the one that it says it is."""
    request.state.protobuf_request = question
    authenticate_node(request)
    return request.app.state.linkstate_factory.state()


def _task(request: Request) -> tuple[Any, Task]:
    """Return SuperLink's state, if the ServerApp has a running task's token, and that task."""
    state = request.app.state.linkstate_factory.state()
    return state, authenticate_task(request, request.headers.get(TASK_TOKEN_HEADER), state)


def _store(
    state: Any, run_id: int, session: str, trees: Iterable[ObjectTree], contents: Sequence[bytes]
) -> None:
    for object_id, content in zip(object_ids(trees), contents, strict=True):
        state.store_object(run_id, session, object_id, content)  # no-op where it is there already


async def _refuse(send: Any, status: int, reason: str) -> None:
    await _send(send, status, [reason.encode()])


async def _send(send: Any, status: int, body: Sequence[bytes]) -> None:
    length = str(sum(map(len, body))).encode()
    headers = [(b"content-length", length), (b"content-type", MEDIA_TYPE.encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for piece in body:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
