"""Ways to divide the training images among the clients, as an experiment names them.

A name alone is short for the defaults of its keys: `partition: dirichlet` is
`partition: {name: dirichlet, alpha: 0.5, min_samples: 10}`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from fedbench.config.explain import nearest
from fedbench.config.fields import Model


class Way(Model):
    """A way to divide the images."""

    name: str

    @property
    def title(self) -> str:
        """Its name and the keys that tell most."""
        return self.name


class Replicated(Way):
    """Every client holds all images, as in Negi & Chinara."""

    name: Literal["replicated"] = "replicated"


class Iid(Way):
    """Shuffled and dealt out whole; sizes differ by at most one."""

    name: Literal["iid"] = "iid"


class Dirichlet(Way):
    """Each class is divided in proportions drawn from Dirichlet(alpha): low alpha, unequal clients.

    Yurochkin et al. 2019, https://arxiv.org/abs/1905.12022: alpha is of each class over the
    clients, not of each client over the classes as in Hsu et al. 2019. Drawn again, up to ten
    times, until every client has `min_samples` images.
    """

    name: Literal["dirichlet"] = "dirichlet"
    alpha: Annotated[float, Field(ge=0.001, le=10_000, strict=False)] = 0.5
    min_samples: Annotated[int, Field(ge=1)] = 10

    @property
    def title(self) -> str:
        """Such as `dirichlet 0.5`."""
        return f"{self.name} {self.alpha:g}"


class Shards(Way):
    """Sorted by class and cut into equal shards, `per_client` of them to each client.

    McMahan et al. 2017, https://arxiv.org/abs/1602.05629: with two, most clients see two classes.
    """

    name: Literal["shards"] = "shards"
    per_client: Annotated[int, Field(ge=1)] = 2

    @property
    def title(self) -> str:
        """Such as `shards 2`."""
        return f"{self.name} {self.per_client}"


class BySize(Way):
    """Images drawn alike, but not as many: `sizes` in the order of the clients, or by a `law`.

    By a law (linear by default) the k-th client's share is in proportion to k, k^2 or e^k. What
    is beyond the sum of `sizes` goes to nobody.
    """

    name: Literal["size"] = "size"
    sizes: (
        Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(strict=False, min_length=1)] | None
    ) = None
    law: Literal["linear", "square", "exponential"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_law_by_default(cls, values: Any) -> Any:
        neither = isinstance(values, dict) and values.keys().isdisjoint(("sizes", "law"))
        return {**values, "law": "linear"} if neither else values

    @model_validator(mode="after")
    def _either_or(self) -> Self:
        if (self.sizes is None) == (self.law is None):
            problem = "expected either this or sizes"
            raise PydanticCustomError("figure", "{problem}", {"key": "law", "problem": problem})
        return self

    @property
    def title(self) -> str:
        """Such as `size linear`; `size` where the sizes are given."""
        return f"{self.name} {self.law}" if self.law else self.name


NAMES = ("replicated", "iid", "dirichlet", "shards", "size")


def _in_full(value: Any) -> Any:
    """Turn a name alone into the keys that it is short for."""
    if isinstance(value, Way):
        return value
    keys = value if isinstance(value, dict) else {"name": value}
    name = keys.get("name")
    if name not in NAMES:
        raise ValueError(f"expected one of {', '.join(NAMES)}{nearest(str(name), NAMES)}")
    return keys


def _form(value: Any) -> str:
    """Return the mark of a form, as `fedbench.config.explain` leaves it out of an error."""
    return f"[{value['name'] if isinstance(value, dict) else value.name}]"


Partition = Annotated[
    Annotated[Replicated, Tag("[replicated]")]
    | Annotated[Iid, Tag("[iid]")]
    | Annotated[Dirichlet, Tag("[dirichlet]")]
    | Annotated[Shards, Tag("[shards]")]
    | Annotated[BySize, Tag("[size]")],
    Discriminator(_form),
    BeforeValidator(_in_full),
]
