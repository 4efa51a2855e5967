"""The ways in which a client can misbehave, one at a time, on an otherwise honest node.

Only `fedbench.client.faulty` uses it. Replies to trainings go wrong, and nothing else does, but for
`mute`, which does not say who it is.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType
from numpy.lib import format as npy

from fedbench.client.node import App, Cancelled, Node
from fedbench.flower import messages
from fedbench.flower.bundles import FLEET_PUSH, MEDIA_TYPE, RefusedError
from fedbench.flower.messages import Deflated
from fedbench.learning.flat import Flat
from fedbench.wire import MISBEHAVED_FILE, MISBEHAVIOUR_FILE, WORK

_ARRAYS, _ARRAY = "arrays", "weights"  # of a reply, as the ClientApp names them
_CLAIMED = 2**33  # numbers of a model that claims to be huge
_STEP_SECONDS = 0.1

log = logging.getLogger("fedbench.faulty")


class MisbehavingNode(Node):
    """An honest node until its file says otherwise."""

    told = Path(MISBEHAVIOUR_FILE)
    said = Path(MISBEHAVED_FILE)

    def __init__(self, app: App, *rest: Any) -> None:
        def obey(message: Message, context: Context) -> Message:
            reply = app(message, context)
            if self._wrong(message) == "raise":
                self._begin()
                raise RuntimeError("told to fail")
            return reply

        super().__init__(obey, *rest)

    def _call(self, message: Message) -> Message:
        reply = super()._call(message)
        wrong = self._wrong(message)
        if wrong in ("silent", "mute", "late"):
            self._begin()
            self._dawdle()
        if wrong in ("silent", "mute"):
            raise Cancelled
        if (spoil := _SPOIL.get(wrong)) and not reply.has_error():
            self._begin()
            spoil(reply)
        return reply

    def _send(self, reply: Message) -> None:
        wrong = self._wrong(reply)
        try:
            if wrong == "no-bundle":
                self._begin()
                self._post(b"this is no bundle")
            elif wrong == "incomplete-bundle":
                self._begin()
                self._fleet.push(reply, _incomplete(messages.deflate([reply])))
            else:
                super()._send(reply)
        except RefusedError as error:
            log.info("refused: %s", error)

    def _wrong(self, message: Message) -> str:
        """Return what to do wrong with a message or a reply of its kind; empty for nothing."""
        word, _ = self._order()
        kind = MessageType.QUERY if word == "mute" else MessageType.TRAIN
        return word if message.metadata.message_type == kind else ""

    def _order(self) -> tuple[str, float]:
        """Return what its file says: a word, empty for nothing, and a number of seconds."""
        if not self.told.exists():
            return "", 0.0
        word, _, seconds = self.told.read_text().strip().partition(" ")
        return word, float(seconds or 0)

    def _begin(self) -> None:
        """Note since when it misbehaves."""
        if not self.said.exists():
            self.said.write_text(str(time.time()))

    def _dawdle(self) -> None:
        """Take so much longer, as a slow device would, which gives up what nobody waits for."""
        _, seconds = self._order()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self._cancelled.is_set():
                raise Cancelled
            time.sleep(_STEP_SECONDS)

    def _post(self, body: bytes) -> None:
        """Push something that is no bundle, in this node's name."""
        http = self._fleet._connection._connect()
        headers = {**self._fleet._credentials(), "Content-Type": MEDIA_TYPE}
        try:
            http.request("POST", FLEET_PUSH, body, headers)
            answer = http.getresponse()
            log.info("refused: %d %s", answer.status, answer.read().decode(errors="replace"))
        finally:
            http.close()


def _incomplete(objects: Deflated) -> Deflated:
    """Leave the first object out."""
    _, *rest = objects.contents.items()
    return Deflated(objects.trees, dict(rest))


def _weights(reply: Message) -> Flat:
    weights: Flat = reply.content[_ARRAYS][_ARRAY].numpy().copy()
    return weights


def _replace(reply: Message, array: Array) -> None:
    reply.content[_ARRAYS] = ArrayRecord({_ARRAY: array})


def _spoil_number(reply: Message) -> None:
    weights = _weights(reply)
    weights[7] = np.nan
    _replace(reply, Array(weights))


def _spoil_shape(reply: Message) -> None:
    """Reply with one number, which would go with every number of the model."""
    _replace(reply, Array(_weights(reply)[:1]))


def _spoil_type(reply: Message) -> None:
    _replace(reply, Array(_weights(reply).astype(np.float64)))


def _spoil_header(reply: Message) -> None:
    """Claim gigabytes, and send what there is."""
    weights, stream = _weights(reply), BytesIO()
    claim = {"descr": "<f4", "fortran_order": False, "shape": (_CLAIMED,)}
    npy.write_array_header_1_0(stream, claim)
    data = stream.getvalue() + weights.tobytes()
    _replace(reply, Array("float32", (weights.size,), "numpy.ndarray", data))


def _spoil_samples(reply: Message) -> None:
    """Say that it trained on a thousand times the images that it has."""
    work = json.loads(str(reply.content[WORK][WORK]))
    work["samples"] *= 1000
    reply.content[WORK] = ConfigRecord({WORK: json.dumps(work)})


_SPOIL: Mapping[str, Callable[[Message], None]] = {
    "nan": _spoil_number,
    "wrong-shape": _spoil_shape,
    "wrong-dtype": _spoil_type,
    "huge-header": _spoil_header,
    "too-many-samples": _spoil_samples,
}
