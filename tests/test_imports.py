"""The house: a folder is the place where its code runs, and imports go downwards only."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import fedbench

PACKAGE = Path(fedbench.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


@cache
def imports(module: str) -> frozenset[str]:
    """Dotted names that a module imports, at its top or inside its functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(names)


def reached(module: str) -> set[str]:
    """Dotted names that a module imports, itself or through other modules of fedbench."""
    found: set[str] = set()
    pending = [module]
    while pending:
        new = imports(pending.pop()) - found
        found |= new
        pending.extend(name for name in new if name in MODULES)
    return found


def under(names: Iterable[str], *packages: str) -> list[str]:
    return sorted(n for n in names if any(n == p or n.startswith(f"{p}.") for p in packages))


# From the ground up: a room imports from those before it, and from no other.
LAYERS = (
    "fedbench",
    "fedbench.errors",
    "fedbench.flower",
    "fedbench.imports",
    "fedbench.config",
    "fedbench.learning",
    "fedbench.records",
    "fedbench.wire",
    "fedbench.telemetry",
    "fedbench.client",
    "fedbench.server.execution",
    "fedbench.server",
    "fedbench.helper",
    "fedbench.host",
    "fedbench.host.setup",
    "fedbench.host.data",
    "fedbench.host.plan",
    "fedbench.engines",
    "fedbench.engines.containers.runtime",
    "fedbench.host.speed",
    "fedbench.host.report.tables",
    "fedbench.host.report.page",
    "fedbench.host.report",
    "fedbench.host.watch",
    "fedbench.engines.containers",
    "fedbench.engines.in_process",
    "fedbench.host.watch.top",
    "fedbench.host.studies",
    "fedbench.host.chaos",
    "fedbench.cli",
)
MOST_MODULES = 15


def room(module: str) -> str:
    """The folder that a module is in; a module beside the folders is a room of its own."""
    folder = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    return module if folder == "fedbench" else folder


def arrows() -> dict[tuple[str, str], list[str]]:
    """(room, room that it imports from) -> the modules that do."""
    found: dict[tuple[str, str], list[str]] = {}
    for module in MODULES:
        for name in (imports(module) & MODULES.keys()) - {"fedbench"}:
            if room(name) != room(module):
                found.setdefault((room(module), room(name)), []).append(f"{module} -> {name}")
    return found


def upward(found: Iterable[tuple[str, str]], layers: Sequence[str] = LAYERS) -> list[str]:
    """The arrows that do not go down: none is a circle's where there are none."""
    height = {name: number for number, name in enumerate(layers)}
    return sorted(f"{room} -> {other}" for room, other in found if height[room] <= height[other])


def test_every_room_has_its_place() -> None:
    assert {room(module) for module in MODULES} == set(LAYERS)


def test_imports_go_downwards() -> None:
    found = arrows()

    assert [found[tuple(arrow.split(" -> "))] for arrow in upward(found)] == []  # type: ignore[index]


def test_an_upward_arrow_and_a_circle_are_seen() -> None:
    """Else the test above could not fail."""
    assert upward([("a", "b")], ("a", "b")) == ["a -> b"]
    assert upward([("a", "b"), ("b", "a")], ("a", "b")) == ["a -> b"]
    assert ("fedbench.cli", "fedbench.config") in arrows()


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES.values()}), ids=str)
def test_a_room_is_seen_at_a_glance(folder: Path) -> None:
    modules = [path for path in folder.glob("*.py") if not path.name.startswith("__")]

    assert len(modules) <= MOST_MODULES


def test_learning_is_plain_pytorch() -> None:
    assert {name for name in LAYERS if ("fedbench.learning", name) in arrows()} <= {
        "fedbench.config"
    }


def test_docker_is_talked_to_by_one_module_and_by_what_sets_it_up() -> None:
    talking = {module for module in MODULES if under(imports(module), "docker")}

    assert talking - set(under(MODULES, "fedbench.host.setup")) == {
        "fedbench.engines.containers.runtime.daemon"
    }


# What Flower documents for those who write apps: anybody may import it, all else only flower/.
PUBLIC_FLOWER = {
    "flwr.app": {
        "Array", "ArrayRecord", "ConfigRecord", "Context", "Error", "Message", "MessageType",
        "MetricRecord", "RecordDict",
    },
    "flwr.clientapp": {"ClientApp"},
    "flwr.serverapp": {"Grid", "ServerApp"},
    "flwr.serverapp.strategy": {"FedAvg", "Strategy"},
}  # fmt: skip


def internals_of_flower(module: str) -> list[str]:
    public = set(PUBLIC_FLOWER) | {
        f"{m}.{name}" for m in PUBLIC_FLOWER for name in PUBLIC_FLOWER[m]
    }
    return [name for name in under(imports(module), "flwr") if name not in public]


def test_flowers_internals_are_touched_in_one_room() -> None:
    outside = MODULES.keys() - set(under(MODULES, "fedbench.flower"))

    assert {m: internals_of_flower(m) for m in outside if internals_of_flower(m)} == {}
    assert "flwr.common.constant.ErrorCode" in internals_of_flower("fedbench.flower.messages")


def test_the_room_of_flower_holds_nothing_else_of_ours() -> None:
    rooms = {name for name in LAYERS if ("fedbench.flower", name) in arrows()}

    assert rooms <= {"fedbench.errors"}


@pytest.mark.parametrize("module", under(MODULES, "fedbench.learning"))
def test_learning_knows_nothing_of_flower_or_docker(module: str) -> None:
    forbidden = ("flwr", "docker", "fedbench.host", "fedbench.client", "fedbench.server")

    assert under(reached(module), *forbidden) == []


@pytest.mark.parametrize("module", under(MODULES, "fedbench.host", "fedbench.cli"))
def test_host_needs_neither_torch_nor_flower(module: str) -> None:
    forbidden = ("torch", "torchvision", "safetensors.torch", "flwr")

    assert under(reached(module), *forbidden) == []


@pytest.mark.parametrize("module", under(MODULES, "fedbench.helper"))
def test_the_helper_needs_neither_torch_nor_flower_nor_docker(module: str) -> None:
    forbidden = ("torch", "flwr", "docker", "fedbench.host", "fedbench.client", "fedbench.server")

    assert under(reached(module), *forbidden) == []


PROJECT = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DECLARED = {
    "host": PROJECT["dependencies"],
    "image": PROJECT["optional-dependencies"]["node"],
}


def plain(name: str) -> str:
    """A distribution's name as indexes compare it, without version and extras."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", name)[0]).lower()


@pytest.mark.parametrize(
    ("where", "rooms"),
    [
        ("host", ("fedbench.host", "fedbench.cli", "fedbench.engines.containers")),
        ("image", ("fedbench.client", "fedbench.server", "fedbench.helper")),
    ],
)
def test_each_place_declares_what_it_imports(where: str, rooms: tuple[str, ...]) -> None:
    modules = under(MODULES, *rooms)
    packages = {name.partition(".")[0] for module in modules for name in reached(module)}
    foreign = packages - sys.stdlib_module_names - {"", "fedbench"}
    distributions = packages_distributions()
    imported = {plain(distributions[package][0]) for package in foreign}

    assert imported - {plain(requirement) for requirement in DECLARED[where]} == set()
    assert len(imported) > 10, "else nothing was seen"


def test_imports_are_seen_through_other_modules() -> None:
    """Else the two tests above could not fail."""
    assert "torch" in imports("fedbench.learning.models")
    assert "torchvision" not in imports("fedbench.learning.models")
    assert "torchvision" in reached("fedbench.learning.models")


def classes() -> dict[str, list[str]]:
    """The name of a class -> the modules that define it."""
    places: dict[str, list[str]] = {}
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(module)
    return places


def test_a_class_name_stands_once() -> None:
    """A reader who searches for a class sees one place."""
    assert "Experiment" in classes()
    assert [name for name, modules in classes().items() if len(modules) > 1] == []
