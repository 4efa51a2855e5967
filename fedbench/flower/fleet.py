"""A node's connection to its server.

Messages travel as bundles (`bundles.py`). Flower's own connection keeps the node alive.
"""

from __future__ import annotations

import ssl
import struct
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
    UnregisterNodeFleetRequest,
)
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore import date
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, pull_objects
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import (
    generate_key_pairs,
    public_key_to_bytes,
    sign_message,
)
from flwr.supercore.retry import RetryInvoker, make_simple_http_retry_invoker
from flwr.supercore.run import RunNotRunningException
from flwr.supernode import fleet_http_client, fleet_http_connection
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.fleet_http_connection import http_request_response
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fedbench.flower import clock
from fedbench.flower.bundles import (
    FLEET_PULL,
    FLEET_PUSH,
    FLEET_WANTED,
    Answer,
    Connection,
    RefusedError,
)
from fedbench.flower.messages import Deflated, object_ids

SERVER_GONE_SECONDS = 120.0  # then the connection counts as lost
CHECK_TIMEOUT_SECONDS = 5.0
# Of a connection on which nothing moves; polls are held back for less. TLS hands on nothing before
# a record of 16 kB is whole. Where a round trip takes 3 s and more, the handshake's packets are
# sent again, TCP begins with one packet for each round trip, and a record takes four of them: so
# twice the time is added in which the node registered, which are three round trips.
TIMEOUT_SECONDS = 30.0
# A message may be announced before all its arrays are there; Flower would wait a second.
_OBJECT_BACKOFF_SECONDS = 0.05
_FORBIDDEN = 403  # of a run that is over
# A heartbeat needs three round trips where its connection is new. Flower gives it 5 s: where a
# round trip takes as long, none of them ever arrives, and SuperLink takes the node for dead.
fleet_http_client.HEARTBEAT_CALL_TIMEOUT = TIMEOUT_SECONDS
# SuperLink believes in a node for twice this; heartbeats go on coming every 20 s, and those round
# trips later. A client that is gone is not missed by them, but by its announcements.
fleet_http_connection.HEARTBEAT_DEFAULT_INTERVAL = 60

_UNAUTHORISED = 401  # a server that was started anew does not know a node

Keys = tuple[ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey]


class NotWantedError(Exception):
    """Nobody waits for the answer to a message any more."""


class RunOverError(NotWantedError):
    """The run that a message belongs to has ended."""


class WithdrawnError(NotWantedError):
    """The server has forgotten a message, because its round is closed."""


_NOT_WANTED = {_FORBIDDEN: RunOverError, _UNAUTHORISED: NotWantedError}


@dataclass(frozen=True)
class Parcel:
    """A message without content, and its objects, which are still to be read."""

    envelope: Message
    tree: ObjectTree
    contents: Iterator[bytes]


class FleetConnection:
    """Asks what a node may ask of its server."""

    def __init__(
        self,
        node_id: int,
        keys: Keys,
        connection: Connection,
        checking: Connection,
        pull_object: Callable[[int, str], bytes],
    ) -> None:
        self.node_id = node_id
        self._keys = keys
        self._connection = connection
        self._checking = checking
        self._check_lock = threading.Lock()
        self._pull_object = pull_object

    def poll(self, known: Collection[str]) -> Parcel | None:
        """Return the next message, if there is one, without `known` objects and their parts.

        Raises:
            RefusedError: the server does not know this node.
            OSError, HTTPException: the server is gone.
        """
        question = PullMessagesRequest(node=Node(node_id=self.node_id))
        answer = self._post(FLEET_PULL, [question.SerializeToString(), " ".join(known).encode()])
        if answer.empty:
            return None
        parts = answer.parts()
        head = PullMessagesResponse.FromString(next(parts))
        return Parcel(
            message_from_proto(head.messages_list[0]), head.message_object_trees[0], parts
        )

    def receive(self, parcel: Parcel, known: Collection[str]) -> dict[str, bytes]:
        """Return the contents of the parcel's objects by id, but for those that were known.

        What did not come along, because the connection broke or because the server has not got it
        yet either, is pulled one by one.

        Raises:
            NotWantedError: the run is over, or the message was withdrawn meanwhile.
        """
        wanted = object_ids([parcel.tree], without=known)
        contents: dict[str, bytes] = {}
        try:
            contents |= zip(wanted, parcel.contents, strict=False)
        except (OSError, HTTPException, struct.error):
            self._connection.close()
        missing = [object_id for object_id in wanted if not contents.get(object_id)]
        run_id = parcel.envelope.metadata.run_id
        with _said_plainly():
            return contents | pull_objects(
                missing,
                lambda object_id: self._pull_object(run_id, object_id),
                initial_backoff=_OBJECT_BACKOFF_SECONDS,
                backoff_cap=0.5,
            )

    def check(self, run_id: int, message_id: str) -> None:
        """Ask if the answer to a message is still wanted; any thread may.

        Raises:
            NotWantedError: it is not, or the server does not know this node any more.
            OSError, HTTPException: the server cannot be reached now.
        """
        question = GetRunRequest(node=Node(node_id=self.node_id), run_id=run_id)
        parts = [question.SerializeToString(), message_id.encode()]
        with self._check_lock:
            try:
                answer = self._checking.post(FLEET_WANTED, parts, self._credentials)
            except RefusedError as error:
                if error.status in _NOT_WANTED:
                    raise _NOT_WANTED[error.status] from None
                return  # it is asked again
            if answer.empty:
                raise WithdrawnError
            list(answer.parts())

    def push(self, reply: Message, objects: Deflated) -> None:
        """Send a reply.

        Raises:
            RunOverError: the run is over.
            RefusedError, OSError, HTTPException: as for `poll`.
        """
        envelope = message_to_proto(remove_content_from_message(reply))
        question = PushMessagesRequest(
            node=Node(node_id=self.node_id),
            messages_list=[envelope],
            message_object_trees=objects.trees,
            clientapp_runtime_list=[0.0],
        )
        try:
            answer = self._post(
                FLEET_PUSH, [question.SerializeToString(), *objects.contents.values()]
            )
        except RefusedError as error:
            if error.status == _FORBIDDEN:
                raise RunOverError from None
            raise
        list(answer.parts())

    def close(self) -> None:
        """Close its connections."""
        self._connection.close()
        with self._check_lock:
            self._checking.close()

    def _post(self, path: str, parts: Sequence[bytes]) -> Answer:
        return self._connection.post(path, parts, self._credentials)

    def _credentials(self) -> dict[str, str]:
        private, public = self._keys
        stamp = date.now().isoformat()
        return {
            FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public_key_to_bytes(public)).decode(),
            TIMESTAMP_HEADER: stamp,
            FLEET_HTTP_SIGNATURE_HEADER: b64encode(sign_message(private, stamp.encode())).decode(),
        }


@contextmanager
def _said_plainly() -> Iterator[None]:
    try:
        yield
    except RunNotRunningException:
        raise RunOverError from None
    except ObjectPullError:  # while the message is there, its objects are
        raise WithdrawnError from None


@contextmanager
def connect(
    address: str, certificate: bytes, stop: threading.Event | None = None
) -> Iterator[FleetConnection]:
    """Register a new node with the server at `address` (host:port) while the block lasts.

    The block ends early, without an exception, when the connection is lost for good, or is lost
    when `stop` is set.
    """
    clock.follow(date, address, certificate)
    keys = generate_key_pairs()
    invoker = make_simple_http_retry_invoker()
    invoker.max_time = SERVER_GONE_SECONDS
    with FleetHttpClient.from_server_address(
        address,
        False,
        certificate,
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(*keys),
        ],
    ) as registry:
        public_key = public_key_to_bytes(keys[1])
        far = 2 * _register(registry, invoker, public_key)
        with http_request_response(
            address,
            insecure=False,
            root_certificates=certificate,
            authentication_keys=keys,
            max_wait_time=SERVER_GONE_SECONDS,
        ) as (node_id, _receive, _send, _run, _fab, pull_object, _push, _confirm):
            opener = _opener(address, certificate, TIMEOUT_SECONDS + far)
            connection = Connection(opener, SERVER_GONE_SECONDS, stop)
            # A check that fails is made again soon.
            checking = Connection(_opener(address, certificate, CHECK_TIMEOUT_SECONDS + far), 0)
            fleet = FleetConnection(node_id, keys, connection, checking, pull_object)
            try:
                yield fleet
            finally:
                fleet.close()
        with suppress(httpx.HTTPError, RuntimeError):
            registry.UnregisterNode(UnregisterNodeFleetRequest(node_id=node_id))


def _register(registry: FleetHttpClient, invoker: RetryInvoker, public_key: bytes) -> float:
    """Register a node; return how many seconds the attempt took that succeeded."""
    began = 0.0

    def attempt(request: RegisterNodeFleetRequest) -> None:
        nonlocal began
        began = time.monotonic()
        registry.RegisterNode(request)

    invoker.invoke(attempt, RegisterNodeFleetRequest(public_key=public_key))
    return time.monotonic() - began


def _opener(address: str, certificate: bytes, timeout: float) -> Callable[[], HTTPConnection]:
    context = ssl.create_default_context(cadata=certificate.decode())
    return lambda: HTTPSConnection(address, timeout=timeout, context=context)
