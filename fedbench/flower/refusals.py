"""What becomes of a message whose answer was no reply: SuperLink gets an error in its place.

Else the run would wait for the node until the round's time is up.
"""

from __future__ import annotations

from base64 import b64decode
from contextlib import suppress
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from fastapi import HTTPException
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
from flwr.supercore.primitives.asymmetric import bytes_to_public_key
from flwr.superlink.routers.fleet.node_auth import authenticate_node
from starlette.requests import Request

from fedbench.flower.messages import deflate, refused


def fail_asked(request: Request, problem: str) -> None:
    """Answer, as errors, all messages that the sender took and has not answered yet.

    Who it is is told by its signature, since the body tells nothing. A stranger fails nobody.
    """
    state = request.app.state.linkstate_factory.state()
    with suppress(HTTPException):
        node_id = signed_by(request)
        for message in _taken(state, node_id):
            _store(state, message, refused(message, problem))


def signed_by(request: Request) -> int:
    """Return the node that signed a request.

    Raises:
        HTTPException: nobody did, or a stranger.
    """
    key = require_key(request)
    state = request.app.state.linkstate_factory.state()
    node_id: int = state.get_node_id_by_public_key(key) or 0
    request.state.protobuf_request = PushMessagesRequest(node=Node(node_id=node_id))
    authenticate_node(request)
    return node_id


def require_key(request: Request) -> bytes:
    """Return the public key that a request names, as a node may have it.

    Raises:
        HTTPException: it names none; Flower would fail at some of those.
    """
    with suppress(ValueError, UnsupportedAlgorithm):
        key = b64decode(request.headers.get(FLEET_HTTP_PUBLIC_KEY_HEADER, ""), validate=True)
        if isinstance(bytes_to_public_key(key), EllipticCurvePublicKey):
            return key
    raise HTTPException(401, "Invalid SuperNode authentication")


def _taken(state: Any, node_id: int) -> list[Message]:
    with state.lock:
        return [
            message
            for message_id, message in state.message_ins_store.items()
            if message.metadata.dst_node_id == node_id
            and message.metadata.delivered_at
            and message_id not in state.message_ins_id_to_message_res_id
        ]


def _store(state: Any, message: Message, reply: Message) -> None:
    (tree,), contents = deflate([reply])
    run_id = reply.metadata.run_id
    session = state.start_session(run_id)
    state.store_message_and_object_tree(remove_content_from_message(reply), tree, session)
    for object_id, content in contents.items():
        state.store_object(run_id, session, object_id, content)
    state.object_store.delete(message.metadata.message_id)
