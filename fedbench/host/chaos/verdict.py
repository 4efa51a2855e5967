"""What was expected of a run amid a fault, against what was seen. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import Field

from fedbench.host.chaos.scenario import Expectation, Scenario
from fedbench.host.chaos.signs import MissedRound
from fedbench.records import Record


class Seen(Record):
    """What became of a run.

    `end` is how it ended, with the `error` of a run that failed; `resumed` how it ended after
    RESUME. `known` is in which words the fault was first told of. `lost` is what of its data is not
    there any more, or damaged.
    """

    victim: str
    end: str
    run: str | None = None
    error: str | None = None
    resumed: str | None = None
    missed: list[MissedRound] = Field(default_factory=list)
    known: str | None = None
    detected_seconds: float | None = None
    rounds_lost: int = 0
    lost: list[str] = Field(default_factory=list)
    unmade: str | None = None


class ChaosRow(Record):
    """One line of `chaos.json`. `ok` is None of a scenario that was skipped, with the reason."""

    scenario: str
    description: str
    expected: str
    seen: str
    detected_seconds: float | None = None
    rounds_lost: int = 0
    data_lost: bool = False
    ok: bool | None = None
    problems: list[str] = Field(default_factory=list)
    run: str | None = None


def skipped(scenario: Scenario, reason: str) -> ChaosRow:
    """Return the line of a scenario that cannot be tried here."""
    return ChaosRow(
        scenario=scenario.name,
        description=scenario.description,
        expected=_expected(scenario.expected),
        seen=f"skipped: {reason}",
    )


def judged(scenario: Scenario, seen: Seen) -> ChaosRow:
    """Return the line of a scenario that was tried."""
    wrong = list(problems(scenario, seen))
    return ChaosRow(
        scenario=scenario.name,
        description=scenario.description,
        expected=_expected(scenario.expected),
        seen=_seen(seen),
        detected_seconds=seen.detected_seconds,
        rounds_lost=seen.rounds_lost,
        data_lost=bool(seen.lost),
        ok=not wrong,
        problems=wrong,
        run=seen.run,
    )


def problems(scenario: Scenario, seen: Seen) -> Iterator[str]:
    """List what was not as expected."""
    expected = scenario.expected
    if seen.unmade:
        yield f"the fault was not made: {seen.unmade}"
    if seen.end != expected.end:
        yield f"the run {seen.end}" + (f": {seen.error}" if seen.error else "")
    elif expected.says and not _says(expected.says, seen.error or ""):
        yield f"its error does not say {expected.says!r}: {seen.error}"
    if expected.resumes and seen.resumed != "finished":
        yield f"after RESUME it {seen.resumed}"
    yield from _missing(scenario, seen)
    if expected.within is not None:
        yield from _late(expected.within, seen.detected_seconds)
    if seen.rounds_lost > expected.rounds_lost:
        yield f"{seen.rounds_lost} rounds were lost, expected {expected.rounds_lost} at most"
    yield from seen.lost


def _late(within: float, seconds: float | None) -> Iterator[str]:
    if seconds is None:
        yield "nobody said what had happened"
    elif seconds > within:
        yield f"known after {seconds:.1f} s, expected {within:g} s at most"


def _missing(scenario: Scenario, seen: Seen) -> Iterator[str]:
    if scenario.who == "federation":
        return  # everyone is
    expected = scenario.expected.missing
    mine = [missed for missed in seen.missed if missed.client == seen.victim]
    for missed in seen.missed:
        if missed.client != seen.victim or missed.round < scenario.when.round or not expected:
            yield f"{missed.client} missed round {missed.round}: {missed.why}"
    if not expected:
        return
    if not mine:
        yield f"{seen.victim} missed no round"
    elif not _says(expected, mine[0].why):
        yield f"{seen.victim} is missing for another reason than {expected!r}: {mine[0].why}"


def _says(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.IGNORECASE) is not None


def _expected(expected: Expectation) -> str:
    """Write it as `finished; missing: crashed; known within 5 s; no round lost`."""
    return "; ".join(_words(expected))


def _words(expected: Expectation) -> Iterator[str]:
    yield expected.end + (f": {expected.says}" if expected.says else "")
    if expected.resumes:
        yield "RESUME finishes it"
    yield f"it is missing: {expected.missing}" if expected.missing else "nobody is missing"
    if expected.within is not None:
        yield f"known within {expected.within:g} s"
    yield _rounds(expected.rounds_lost, "at most ")


def _rounds(number: int, before: str = "") -> str:
    if not number:
        return "no round lost"
    return f"{before}{number} round{'s' if number > 1 else ''} lost"


def _seen(seen: Seen) -> str:
    """Write it in the same order."""
    words = [seen.end + (f": {seen.error}" if seen.error else "")]
    if seen.resumed:
        words.append(f"after RESUME {seen.resumed}")
    words.append(_who(seen.missed))
    if seen.detected_seconds is not None:
        words.append(f"known after {seen.detected_seconds:.1f} s ({seen.known})")
    words.append(_rounds(seen.rounds_lost))
    return "; ".join([*words, *seen.lost])


def _who(missed: list[MissedRound]) -> str:
    """Write who missed which rounds, each with the reason that it had first."""
    rounds: dict[str, list[int]] = {}
    why: dict[str, str] = {}
    for one in missed:
        rounds.setdefault(one.client, []).append(one.round)
        why.setdefault(one.client, one.why)
    parts = [
        f"{client} is missing in round{'s' if len(numbers) > 1 else ''} "
        f"{', '.join(map(str, numbers))} ({why[client]})"
        for client, numbers in rounds.items()
    ]
    return ", ".join(parts) or "nobody is missing"
