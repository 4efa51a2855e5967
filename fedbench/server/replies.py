"""The door for what clients send: it is parsed and checked before anything of it is kept."""

from __future__ import annotations

from typing import Literal

from flwr.app import ArrayRecord, Message, MetricRecord
from pydantic import ValidationError

from fedbench.records.rounds import TrainWork
from fedbench.server.strategy import ARRAY
from fedbench.wire import WORK, EvaluateReply, Work, first_problem

Kind = Literal["train", "evaluate"]
_MODELS: dict[Kind, type[Work]] = {"train": TrainWork, "evaluate": EvaluateReply}


class FailedReplyError(Exception):
    """A client's reply is an error, or is not what a reply should be; says which."""


def admit(kind: Kind, reply: Message, sent: ArrayRecord) -> Work:
    """Return what a client did, and tell the strategy by how many samples its reply counts.

    `sent` is the model that the client was sent.

    Raises:
        FailedReplyError: the reply is an error, or not valid.
    """
    if reply.has_error():
        raise FailedReplyError(reply.error.reason)
    work = _work(kind, reply)
    if isinstance(work, TrainWork):
        _require_trained(work, reply, sent)
    samples = work.samples if isinstance(work, TrainWork) else work.test_samples
    # The name is Flower's: its strategies weigh by it.
    reply.content["metrics"] = MetricRecord({"num-examples": samples})
    return work


def _work(kind: Kind, reply: Message) -> Work:
    try:
        return _MODELS[kind].model_validate_json(str(reply.content[WORK][WORK]))
    except KeyError:
        raise FailedReplyError("its reply is not valid: it does not say what was done") from None
    except ValidationError as error:
        raise FailedReplyError(f"its reply is not valid: {first_problem(error)}") from None


def _require_trained(work: TrainWork, reply: Message, sent: ArrayRecord) -> None:
    if work.samples < 1:
        raise FailedReplyError("its reply is not valid: samples: it trained on none")
    arrays = reply.content.get("arrays") or {}
    expected, array = sent[ARRAY], arrays.get(ARRAY)
    if array is None or (array.dtype, array.shape) != (expected.dtype, expected.shape):
        was = f"{array.dtype} {list(array.shape)}" if array else "nothing"
        raise FailedReplyError(
            f"its reply is not valid: its model is {was}, "
            f"expected {expected.dtype} {list(expected.shape)}"
        )
