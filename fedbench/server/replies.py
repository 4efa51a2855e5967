"""The door for what clients send: it is parsed and checked before anything of it is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from pydantic import ConfigDict, ValidationError

from fedbench.flower import arrays
from fedbench.flower.arrays import ArrayError
from fedbench.flower.messages import crashed, expired, is_from_a_lost_node, refusal
from fedbench.records.rounds import Missing, TrainWork
from fedbench.server.strategy import ARRAY, ARRAYS, SAMPLES
from fedbench.wire import LOSSES, WORK, EvaluateReply, Work, first_problem

Kind = Literal["train", "evaluate"]

_LONGEST_REASON = 2000  # characters
_LARGEST_NUMBER = 1e15  # of seconds, bytes or counts: sums of such are finite
_LARGEST_LOSS = float(np.finfo(np.float32).max)
_RECORDS: dict[Kind, set[str]] = {"train": {WORK, ARRAYS}, "evaluate": {WORK}}
# What a client must say of its learning, if it learns.
_LEARNING: dict[Kind, tuple[str, ...]] = {
    "train": ("epoch_seconds", "local_accuracy", "local_loss"),
    "evaluate": ("evaluate_seconds", "server_accuracy", "server_loss"),
}
_LOSS_FIELDS = ("local_loss", "server_loss")
# The exceptions of Python and of torch.
_NO_MEMORY = ("MemoryError", "OutOfMemoryError")
_ACCURACIES = ("local_accuracy", "server_accuracy")


class FailedReplyError(Exception):
    """A client's reply is an error, or is not what a reply should be; says which.

    `missing` is what kind of error.
    """

    def __init__(self, reason: str, missing: Missing) -> None:
        super().__init__(reason[:_LONGEST_REASON])
        self.missing = missing


class _Refused(ValueError):  # noqa: N818 (a reason, for `admit` alone)
    """What was expected, and what came."""


class _TrainReply(TrainWork):
    model_config = ConfigDict(extra="forbid", strict=True)


class _EvaluateReply(EvaluateReply):
    model_config = ConfigDict(extra="forbid", strict=True)


_MODELS: dict[Kind, type[Work]] = {"train": _TrainReply, "evaluate": _EvaluateReply}


@dataclass(frozen=True)
class Asked:
    """What a client was asked: it measures its reply.

    `sent` is the model that it got, `samples` how many training images it said that it has (None
    where it was not asked), `learns` is whether it trains at all.
    """

    sent: ArrayRecord
    classes: int
    samples: int | None = None
    learns: bool = True


def admit(kind: Kind, reply: Message, asked: Asked) -> Work:
    """Return what a client did, and tell the strategy by how many samples its reply counts.

    A loss that is no number is none: a model that diverges has such a loss, and is no worse an
    update for it.

    Raises:
        FailedReplyError: the reply is an error, or not valid.
    """
    if reply.has_error():
        raise FailedReplyError(reply.error.reason, _kind_of_error(kind, reply))
    try:
        work = _work(kind, reply, asked)
        if isinstance(work, TrainWork):
            _require_trained(work, reply, asked)
        else:
            _require_evaluated(work, asked)
    except (_Refused, ArrayError) as problem:
        raise FailedReplyError(f"{refusal(kind)}: {problem}", "refused") from None
    samples = work.samples if isinstance(work, TrainWork) else work.test_samples
    reply.content["metrics"] = MetricRecord({SAMPLES: samples})
    return work


def discount(reply: Message, weight: float) -> None:
    """Let the strategy count a reply that was admitted for less, because it comes late."""
    metrics = reply.content["metrics"]
    reply.content["metrics"] = MetricRecord({SAMPLES: weight * float(metrics[SAMPLES])})


def _kind_of_error(kind: Kind, reply: Message) -> Missing:
    reason = reply.error.reason
    if expired(reply):
        return "timed_out"
    if crashed(reply):
        return "crashed"
    if is_from_a_lost_node(reply):
        return next((missing for words, missing in LOSSES if reason.startswith(words)), "network")
    if reason.startswith(f"{refusal(kind)}: "):
        return "refused"
    return "out_of_memory" if reason.startswith(_NO_MEMORY) else "error"


def _work(kind: Kind, reply: Message, asked: Asked) -> Work:
    content = reply.content
    _require_names("records", content, _RECORDS[kind])
    record = content[WORK]
    _require_names(f"values in {WORK}", record, {WORK})
    if not isinstance(record, ConfigRecord):
        raise _Refused(f"{WORK} is a {type(record).__name__}, expected a ConfigRecord")
    try:
        work = _MODELS[kind].model_validate_json(str(record[WORK]))
    except ValidationError as error:
        raise _Refused(first_problem(error)) from None
    if asked.learns:
        _require_learning(kind, work)
    _require_numbers(work)
    return work.model_copy(update=dict.fromkeys(_no_numbers(work)))


def _require_names(what: str, there: Any, expected: set[str]) -> None:
    if set(there) != expected:
        names = ", ".join(sorted(there)) or "none"
        raise _Refused(f"its {what} are {names}; expected {', '.join(sorted(expected))}")


def _require_learning(kind: Kind, work: Work) -> None:
    for name in _LEARNING[kind]:
        if getattr(work, name) in (None, []):
            raise _Refused(f"{name}: it does not say")


def _require_numbers(work: Work) -> None:
    """Refuse what would make sums overflow, and shares that are none."""
    for name, value in _numbers(work.model_dump(exclude={*_LOSS_FIELDS, "confusion"})):
        if not abs(value) <= _LARGEST_NUMBER:
            raise _Refused(f"{name}: {str(value)[:20]}, expected no more than {_LARGEST_NUMBER:g}")
        if name in _ACCURACIES and not 0 <= value <= 1:
            raise _Refused(f"{name}: {str(value)[:20]}, expected 0 to 1")


def _numbers(value: Any, name: str = "") -> list[tuple[str, float]]:
    """Return the numbers in a statement, each with the name of its field."""
    if isinstance(value, dict):
        return [number for key in value for number in _numbers(value[key], key)]
    if isinstance(value, list):
        return [number for item in value for number in _numbers(item, name)]
    return [] if value is None else [(name, value)]


def _no_numbers(work: Work) -> list[str]:
    """Return which losses are none that single precision has."""
    losses = {name: getattr(work, name, None) for name in _LOSS_FIELDS}
    return [
        name for name, loss in losses.items() if loss is not None and not abs(loss) <= _LARGEST_LOSS
    ]


def _require_evaluated(work: EvaluateReply, asked: Asked) -> None:
    if not work.confusion:
        return
    size, counted = asked.classes**2, sum(work.confusion)
    if (len(work.confusion), counted) != (size, work.test_samples):
        raise _Refused(
            f"confusion: {len(work.confusion)} cells with {counted} images, "
            f"expected {size} with {work.test_samples}"
        )


def _require_trained(work: TrainWork, reply: Message, asked: Asked) -> None:
    most = asked.samples
    if work.samples < 1 or (most is not None and work.samples > most):
        expected = "1 or more" if most is None else f"1 to {most}, as it said that it has"
        raise _Refused(f"samples: {work.samples}, expected {expected}")
    record = reply.content[ARRAYS]
    _require_names(f"values in {ARRAYS}", record, {ARRAY})
    if not isinstance(record, ArrayRecord):
        raise _Refused(f"{ARRAYS} is a {type(record).__name__}, expected an ArrayRecord")
    sent, array = asked.sent[ARRAY], record[ARRAY]
    expected = f"{sent.dtype} {list(sent.shape)}"
    weights = arrays.read(array)
    for came in (f"{array.dtype} {list(array.shape)}", f"{weights.dtype} {list(weights.shape)}"):
        if came != expected:
            raise _Refused(f"its model is {came}, expected {expected}")
    if wrong := arrays.count_not_finite(weights):
        raise _Refused(f"{wrong} of its model's {weights.size} numbers are NaN or infinite")
