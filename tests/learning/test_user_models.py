from pathlib import Path

import pytest

from fedbench.learning import user_models
from fedbench.learning.user_models import ModelError, digest, load


def test_the_checkout_has_an_example() -> None:
    assert Path(__file__).resolve().parents[2] / "models" == user_models.FOLDER
    assert load("sample:small_cnn").__name__ == "small_cnn"


def test_a_module_is_read_as_it_is_now_with_those_that_it_imports(own_models: Path) -> None:
    (own_models / "nets.py").write_text("from parts import size\ndef net(classes): return size")
    for size in (1, 22):
        (own_models / "parts.py").write_text(f"size = {size}")
        assert load("nets:net")(10) == size


def test_a_module_hides_no_other(own_models: Path) -> None:
    (own_models / "json.py").write_text("def net(classes): pass")
    with pytest.raises(ModelError, match=r"another module is called json: rename models/json\.py"):
        load("json:net")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nts:net", r"model nts:net: no file models/nts\.py; there are fails\.py, nets\.py"),
        ("nets:nt", r"model nets:nt: nothing to call in models/nets\.py is named nt"),
        ("nets:size", r"model nets:size: nothing to call in models/nets\.py is named size"),
        ("fails:net", r"model fails:net: models/fails\.py, line 2: KeyError: 'a'"),
    ],
)
def test_what_is_not_there_is_named(own_models: Path, name: str, why: str) -> None:
    (own_models / "nets.py").write_text("size = 3\ndef net(classes): return size")
    (own_models / "fails.py").write_text("\n{}['a']")
    with pytest.raises(ModelError, match=why):
        load(name)


def test_a_slip_in_the_code_is_shown_with_its_line(own_models: Path) -> None:
    (own_models / "slip.py").write_text("def net(classes):\n    return (")
    with pytest.raises(ModelError, match=r"SyntaxError: .* \(slip\.py, line 2\)"):
        load("slip:net")


def test_a_digest_is_of_names_and_texts(own_models: Path) -> None:
    seen = {digest(own_models)}
    for name, text in (("a.py", "1"), ("a.py", "2"), ("b.py", "2")):
        (own_models / name).write_text(text)
        seen.add(digest(own_models))
    assert len(seen) == 4
    (own_models / "notes.txt").write_text("3")
    assert digest(own_models) in seen
