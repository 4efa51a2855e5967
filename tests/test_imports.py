"""A folder is the place where its code runs: what may be imported where (DESIGN.md, section 4)."""

import ast
from collections.abc import Iterable
from functools import cache
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


def test_imports_are_seen_through_other_modules() -> None:
    """Else the two tests above could not fail."""
    assert "torch" in imports("fedbench.learning.models")
    assert "torchvision" not in imports("fedbench.learning.models")
    assert "torchvision" in reached("fedbench.learning.models")
