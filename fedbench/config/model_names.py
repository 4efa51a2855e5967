"""What a model may be called. Pure: whether torchvision has it is known where torch is."""

from __future__ import annotations

import difflib
import re

from pydantic_core import PydanticCustomError

MODELS = ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large")
"""The four of the study."""

_TORCHVISIONS = re.compile(r"[a-z][a-z0-9_]*")
_OWN = re.compile(r"[A-Za-z_]\w*:[A-Za-z_]\w*", re.ASCII)
_EXPECTED = f"expected {', '.join(MODELS)}, a classifier of torchvision or module:callable"
# Above what any other model of torchvision is like one of the four.
_NEAR_MISS = 0.8


def parse_model(value: str) -> str:
    """Return the name of a model, unchanged: one of `MODELS`, torchvision's, or `module:callable`.

    A name that is nearly one of `MODELS` is taken for a slip of the pen.

    Raises:
        ValueError: it cannot be the name of a model; says which may have been meant.
    """
    if value in MODELS:
        return value
    meant = difflib.get_close_matches(value.lower(), MODELS, n=2, cutoff=_NEAR_MISS)
    if is_own(value) or (_TORCHVISIONS.fullmatch(value) and not meant):
        return value
    hint = f"; did you mean {' or '.join(meant)}?" if meant else ""
    problem = f"{_EXPECTED}, found {value!r}{hint}"
    raise PydanticCustomError("model_name", "{problem}", {"problem": problem})


def is_own(model: str) -> bool:
    """Say whether it is the user's own, `module:callable` of the folder `models/`."""
    return _OWN.fullmatch(model) is not None
