"""A device profile: one kind of computer, and the link that it has to the server."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from fedbench.config.fields import Bytes, Model, ModelName, Name, Rate, Seconds, Share, Speed
from fedbench.config.provenance import disagreements, figures


def _enough_memory(value: int) -> int:
    if value < 256 * 2**20:
        raise ValueError("expected at least 256MiB")
    return value


class Gpu(Model):
    """A device's GPU; `share` is the part of its time that the device's clients get."""

    model: str
    memory: Bytes
    share: Annotated[float, Field(gt=0, le=1, strict=False)] = 1.0


class Watts(Model):
    """What the whole device draws, idle and while it trains."""

    idle: Annotated[float, Field(ge=0, strict=False)]
    load: Annotated[float, Field(gt=0, strict=False)]


class Network(Model):
    """A device's link to the server: bit/s down to it and up from it, and what each way adds.

    `delay`, `jitter` (seconds) and `loss` (0 to 1) hold for each of the two directions.
    """

    down: Rate | None = None
    up: Rate | None = None
    delay: Seconds = 0.0
    jitter: Seconds = 0.0
    loss: Share = 0.0


class NetworkClass(Network):
    """A kind of link that has a name; `sources` as of a device."""

    name: Name
    description: str
    sources: dict[Literal["down", "up", "delay", "jitter", "loss"], str] = Field(
        default_factory=dict
    )


def _form(network: object) -> str:
    return "[name]" if isinstance(network, str) else "[keys]"


NetworkOrName = Annotated[
    Annotated[Network, Tag("[keys]")] | Annotated[Name, Tag("[name]")], Discriminator(_form)
]


class Device(Model):
    """One kind of computer: how fast it is, and what else a container of it may use.

    `speed` is what one client trains on the real device, in samples/s by model, on the GPU where
    the device has one; `capacity` what several clients reach together, where that is more.
    `sources` says by key (`memory`, `speed.mobilenet_v2`) where a figure was read: the others
    are estimated.
    """

    name: Name
    description: str
    cores: Annotated[float, Field(gt=0)]
    threads: Annotated[int, Field(ge=1)] | None = None
    memory: Annotated[Bytes, AfterValidator(_enough_memory)]
    gpu: Gpu | None = None
    speed: dict[ModelName, Speed] = Field(default_factory=dict)
    capacity: dict[ModelName, Speed] = Field(default_factory=dict)
    watts: Watts | None = None
    network: NetworkOrName | None = None
    sources: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _figures_agree(self) -> Self:
        for key, problem in disagreements(self.model_dump()):
            raise PydanticCustomError("figure", "{problem}", {"key": key, "problem": problem})
        return self

    def figures(self) -> dict[str, str]:
        """Return its figures by dotted key, each with its unit, such as `speed.mobilenet_v2`."""
        return figures(self.model_dump())

    def estimated(self) -> list[str]:
        """Return the keys of the figures that no source is given for."""
        return [key for key in self.figures() if key not in self.sources]
