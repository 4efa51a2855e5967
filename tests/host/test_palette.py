"""One palette: complete, legible, and the same hue on either ground."""

from __future__ import annotations

import colorsys
from pathlib import Path

import pytest

from fedbench.host import palette
from fedbench.host.palette import (
    GRAFANA_PHASES,
    GREY,
    HUES,
    PHASES,
    SERIES,
    TERMINAL_PHASES,
    Hue,
)
from fedbench.host.report.page import render
from fedbench.telemetry.work import CLIENT_PHASES

CSS = (Path(render.__file__).parent / "page.css").read_text(encoding="utf-8")


def channels(colour: str) -> tuple[float, float, float]:
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red / 255, green / 255, blue / 255


def luminance(colour: str) -> float:
    """As WCAG defines it, 0 to 1."""
    weights = (0.2126, 0.7152, 0.0722)
    linear = (((c + 0.055) / 1.055) ** 2.4 if c > 0.04045 else c / 12.92 for c in channels(colour))
    return sum(weight * value for weight, value in zip(weights, linear, strict=True))


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_wcags() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("phases", [PHASES, GRAFANA_PHASES, TERMINAL_PHASES])
def test_each_phase_has_a_colour_of_its_own(phases: dict[str, object]) -> None:
    assert tuple(phases) == CLIENT_PHASES
    assert len(set(phases.values())) == len(phases)


def test_series_have_eight_hues() -> None:
    assert len({hue.name for hue in SERIES}) == len(SERIES) == 8


@pytest.mark.parametrize("hue", HUES, ids=lambda hue: hue.name)
def test_a_hue_is_legible_on_the_pages_grounds(hue: Hue) -> None:
    for shade, ground in ((hue.light, "#ffffff"), (hue.dark, "#191d24")):
        assert f"--surface: {ground};" in CSS
        assert contrast(shade, ground) >= 3


@pytest.mark.parametrize("hue", [hue for hue in HUES if hue != GREY], ids=lambda hue: hue.name)
def test_both_shades_are_of_one_hue(hue: Hue) -> None:
    dark, light = (
        colorsys.rgb_to_hsv(*channels(shade))[0] * 360 for shade in (hue.dark, hue.light)
    )
    assert abs(dark - light) < 20


def test_names_of_hues_are_those_of_the_module() -> None:
    for hue in HUES:
        assert getattr(palette, hue.name.upper().replace("-", "_")) is hue
