from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedbench.errors import DataError
from fedbench.host.data import picture

HELD = {
    "workstation": {"cat": 1200, "dog": 0, "$5": 30},
    "laptop": {"cat": 5, "dog": 700, "$5": 1},
}


def crowd(clients: int, classes: int) -> dict[str, dict[str, int]]:
    return {
        f"legacy-pc-{client}": {f"class {label}": client + label for label in range(classes)}
        for client in range(1, clients + 1)
    }


def words(file: Path) -> list[str]:
    texts = ET.parse(file).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(text.itertext()) for text in texts]


def test_an_svg_names_clients_classes_and_counts(tmp_path: Path) -> None:
    picture.draw(HELD, "animals, iid", tmp_path / "held.svg")
    written = words(tmp_path / "held.svg")
    assert {"animals, iid", "workstation", "laptop", "cat", "dog", "$5", "1200", "700"} <= set(
        written
    )
    assert {"1,230", "706"} <= set(written)
    assert "5" not in written  # no room in the bar
    assert "0" in written  # only of the scale
    assert written.count("0") == 1


def test_the_same_picture_is_the_same_file(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        picture.draw(HELD, "animals, iid", tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_png_has_a_colour_for_each_class_and_a_row_for_each_client(tmp_path: Path) -> None:
    heights = []
    for clients in (3, 30):
        picture.draw(crowd(clients, 10), "many", tmp_path / "held.png")
        with Image.open(tmp_path / "held.png") as image:
            heights.append(image.height)
            counted = image.convert("RGB").getcolors(maxcolors=2**24) or []
        counts = np.array([count for count, _ in counted])
        colours = np.array([colour for _, colour in counted])
        vivid = colours[(counts > 2000) & (np.ptp(colours, axis=1) > 50)]
        assert len(vivid) == 9  # and grey is the tenth
    assert heights[1] > 4 * heights[0]


@pytest.mark.parametrize("classes", [11, 21, 40])
def test_more_classes_still_have_a_legend(tmp_path: Path, classes: int) -> None:
    picture.draw(crowd(3, classes), "many", tmp_path / "held.svg")
    written = words(tmp_path / "held.svg")
    assert [f"class {label}" in written for label in range(classes)] == [True] * classes


def test_too_many_classes_for_a_legend_are_counted(tmp_path: Path) -> None:
    picture.draw(crowd(3, 100), "many", tmp_path / "held.svg")
    note = "training images (100 classes, coloured in their order: class 0 to class 99)"
    assert note in words(tmp_path / "held.svg")


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "nowhere" / "held.png"
    with pytest.raises(DataError, match="cannot be written"):
        picture.draw(HELD, "animals", file)
