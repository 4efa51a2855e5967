"""Whatever is in a configuration, it is loaded or refused with our error, soon and in little."""

from __future__ import annotations

import copy
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from fuzz import examples
from hypothesis import given
from hypothesis import strategies as st

from fedbench.config import CONFIGS, available, load_devices, load_networks
from fedbench.config.loading import load_device, load_experiment, load_network, load_profile
from fedbench.config.overrides import override
from fedbench.config.plain_yaml import MOST_BYTES, MOST_DEPTH
from fedbench.errors import ConfigError
from fedbench.host.studies.sweep_grid import load_study

KINDS: dict[str, Callable[[str], object]] = {
    "device": load_device,
    "network": load_network,
    "profile": load_profile,
    "experiment": load_experiment,
    "sweep": load_study,
}
LAUGHS = "a: &a [x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
# What SafeLoader itself fails at with another error than its own, or takes for long.
TRAPS = (
    LAUGHS, "name: &a [*a]\n", "<<: &a {<<: *a}\n", "[" * 10**4, "{a: " * 10**4, "- " * 10**4,
    "? " * 10**4, "seed: " + "9" * 10**4, "seed: 0x" + "f" * 10**5, "rounds: 2001-99-99",
    "rounds: !!bool maybe", "rounds: !!int x", "rounds: !!float x", "rounds: !!timestamp x",
    "rounds: !!binary '*'", "rounds: !!python/object/apply:os.system ['true']", "? [a]\n: 1",
    "? {a: 1}\n: 1", "1: 2", "null: 2", "a: 1\na: 2", "name: \0", "name: 'a\0b'", "\ufeffname: a",
    "name: \x07", "name: \ud7ff", "%YAML 9.9\n---\nname: a", "--- a\n--- b", "!!set {a, b}",
    "!!omap [a: 1]", "!!pairs [a: 1]", "rounds: 1:60", "rounds: .nan", "rounds: -.inf", "@",
    "name: " + "a" * (MOST_BYTES + 1),
)  # fmt: skip


def loaded(kind: str, path: Path) -> bool:
    """Whether it was loaded, with what else is read because of it; else it was refused well."""
    refusal = None
    try:
        value = KINDS[kind](str(path))
        if kind == "profile":
            load_networks(value, load_devices(value))  # type: ignore[arg-type]
    except ConfigError as error:
        refusal = error
    assert refusal is None or len(refusal.message) < 20_000
    return refusal is None


@pytest.mark.parametrize("number", range(len(TRAPS)))
def test_what_a_parser_trips_over_is_refused(number: int, tmp_path: Path) -> None:
    path = tmp_path / "any.yaml"
    path.write_text(TRAPS[number], encoding="utf-8")
    tracemalloc.start()
    assert not loaded("profile", path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 2**20


@pytest.mark.parametrize("kind", ["device", "sweep"])
@examples(40)
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_refused(kind: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(content)
    loaded(kind, path)


@cache
def configurations(kind: str) -> list[Any]:
    files = [CONFIGS / f"{kind}s" / f"{name}.yaml" for name in available(kind)]
    return [yaml.safe_load(path.read_text(encoding="utf-8")) for path in files]


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to all that a configuration has."""
    items = value.items() if isinstance(value, dict) else []
    items = enumerate(value) if isinstance(value, list) else items
    for key, inner in items:
        yield (*way, key)
        yield from places(inner, (*way, key))


numbers = st.integers() | st.floats() | st.sampled_from([0, -1, 10**6, 10**18, 2**64, 10**400])
scalars = (
    st.none() | st.booleans() | numbers | st.text(max_size=20) | st.dates() | st.binary(max_size=4)
    | st.sampled_from(["iid", "", "../..", "1e999 s/epoch", "9" * 400 + "GiB", "noop", "a" * 300])
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.integers() | st.none(), inner, max_size=3)
    ),
    max_leaves=6,
)


class Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


@pytest.mark.parametrize("kind", KINDS)
@examples(60)
@given(data=st.data(), other=values)
def test_any_value_in_any_place_is_loaded_or_refused(
    kind: str, data: st.DataObject, other: Any, tmp_path: Path
) -> None:
    whole = copy.deepcopy(data.draw(st.sampled_from(configurations(kind))))
    *way, last = data.draw(st.sampled_from([*places(whole)]))
    inner = whole
    for key in way:
        inner = inner[key]
    if isinstance(inner, dict) and data.draw(st.booleans()):
        inner[data.draw(st.text(max_size=5))] = other  # a key that nobody knows
    else:
        inner[last] = other
    path = tmp_path / "any.yaml"
    path.write_text(yaml.dump(whole, Dumper=Plain), encoding="utf-8")
    loaded(kind, path)


@examples(100)
@given(
    key=st.sampled_from(["rounds", "data.partition.alpha", "machines.0.count", "", ".", "a..b"]),
    text=st.text(max_size=50) | st.sampled_from(TRAPS),
)
def test_any_setting_is_taken_or_refused(key: str, text: str) -> None:
    with suppress(ConfigError):
        override({"data": {"partition": "iid"}, "machines": [{}]}, f"{key}={text}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["a" * 5000, "a" * 5000 + ".yaml", "a\0b", "a\0b.yaml", "", "/"])
def test_a_name_that_no_file_can_have_is_unknown(kind: str, name: str) -> None:
    with pytest.raises(ConfigError, match=kind):
        KINDS[kind](name)


def test_what_is_just_within_bounds_is_read(tmp_path: Path) -> None:
    path = tmp_path / "any.yaml"
    deep = "{a: " * (MOST_DEPTH - 2) + "1" + "}" * (MOST_DEPTH - 2)
    path.write_text(f"description: {'x' * (MOST_BYTES - 1000)}\nwhat: {deep}\n")
    with pytest.raises(ConfigError, match="what: no such key"):
        load_network(str(path))
