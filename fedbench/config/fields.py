"""The types of what a configuration's keys hold, and the model that all of it is made of."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from fedbench.config.model_names import parse_model
from fedbench.config.units import parse_bytes, parse_rate, parse_seconds, parse_share, parse_speed


def parse_name(value: str) -> str:
    """Return the name of a device, profile, experiment or client, unchanged.

    Raises:
        ValueError: it could not be the name of a host, a container and a folder.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,40}", value):
        raise ValueError("expected lower-case letters, digits and '-', at most 41 characters")
    return value


Bytes = Annotated[int, BeforeValidator(parse_bytes)]
Rate = Annotated[float, BeforeValidator(parse_rate)]
Seconds = Annotated[float, BeforeValidator(parse_seconds)]
Share = Annotated[float, BeforeValidator(parse_share)]
Speed = Annotated[float, BeforeValidator(parse_speed)]
Name = Annotated[str, AfterValidator(parse_name)]
ModelName = Annotated[str, AfterValidator(parse_model)]


class Model(BaseModel):
    """A frozen model that refuses unknown keys and does not turn strings into numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
