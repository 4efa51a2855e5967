from __future__ import annotations

import re

import pytest

from fedbench import errors

DOCUMENTED = re.findall(r"^[│├└─ ]*([A-Z]\w+) +(\d+) ", errors.__doc__ or "", re.MULTILINE)


@pytest.mark.parametrize(("name", "code"), DOCUMENTED)
def test_an_error_has_the_exit_code_that_the_tree_says(name: str, code: str) -> None:
    assert getattr(errors, name).exit_code == int(code)


def test_the_tree_shows_every_error() -> None:
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert {name for name, _ in DOCUMENTED} == {kind.__name__ for kind in classes}
    assert all(issubclass(kind, errors.FedbenchError) for kind in classes)
    assert issubclass(errors.DockerError, errors.HostError)


def test_an_error_carries_a_message_and_a_hint() -> None:
    error = errors.HostError("too small", "use a larger one")
    assert (str(error), error.message, error.hint) == ("too small", "too small", "use a larger one")
    assert errors.HostError("too small").hint == ""
