"""The command that breaks a federation on purpose, and checks what its runs make of that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedbench.cli import checkout, engines
from fedbench.cli.options import Json, Settings
from fedbench.cli.output import console, print_json, print_table, say
from fedbench.config import Experiment, load_experiment
from fedbench.engines.containers.runtime.stack import Stack, require
from fedbench.errors import FedbenchError, RunError
from fedbench.host.chaos import results
from fedbench.host.chaos.results import ChaosResults
from fedbench.host.chaos.scenario import Scenario, load_scenarios
from fedbench.host.chaos.verdict import ChaosRow
from fedbench.records import replace_text

if TYPE_CHECKING:  # slow imports
    from fedbench.host.chaos.matrix import Matrix

_PROFILE = _EXPERIMENT = "chaos"
_DOCUMENT = Path("RELIABILITY.md")


def chaos(
    names: Annotated[
        list[str] | None, typer.Argument(help="names in configs/chaos, or YAML files; all")
    ] = None,
    as_list: Annotated[bool, typer.Option("--list", help="name the scenarios")] = False,
    as_table: Annotated[
        bool, typer.Option("--table", help=f"write what is recorded into {_DOCUMENT}")
    ] = False,
    fast: Annotated[bool, typer.Option("--fast", help="only those that CI runs")] = False,
    here: Annotated[
        bool, typer.Option("--here", help="on the federation that is up, whichever it is")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="record it in this file [runs/chaos/chaos.json]")
    ] = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Break a small federation in many ways, one at a time, and check what its runs make of it."""
    file = output or checkout.places.runs / results.FILE
    scenarios = [one for one in load_scenarios(names or ()) if one.fast or not fast]
    if as_list:
        _print_list(scenarios, as_json=as_json)
    elif as_table:
        _write_table(results.read(file))
    else:
        recorded = ChaosResults(file, anew=not names and not fast)
        _try(scenarios, recorded, settings or [], here=here, as_json=as_json)


def _try(
    scenarios: Sequence[Scenario],
    recorded: ChaosResults,
    settings: list[str],
    *,
    here: bool,
    as_json: bool,
) -> None:
    from fedbench.host.setup import bootstrap

    # A scenario takes the federation down: the daemon stays for the next.
    with bootstrap.docker_session(say), checkout.saying_what_stays_up():
        stack = require(checkout.places) if here else _bring_up(settings)
        rows = _matrix(stack, recorded, here=here).run(scenarios)
    if as_json:
        print_json([row.model_dump(mode="json") for row in rows])
    failed = [row.scenario for row in rows if row.ok is False]
    tried = sum(row.ok is not None for row in rows)
    say(f"{tried - len(failed)} of {tried} scenarios are as expected, {len(rows) - tried} skipped")
    if failed:
        raise RunError(
            f"not as expected: {', '.join(failed)}",
            "the runs' folders and `make logs` show why; "
            f"`fedbench chaos {failed[0]}` tries one again",
        )


def _bring_up(settings: list[str]) -> Stack:
    """Return the federation for it; one of another profile that is up is nobody's to break.

    Raises:
        FedbenchError: such a one is up.
    """
    known = Stack.load(checkout.places)
    if known and known.profile.name != _PROFILE:
        raise FedbenchError(
            f"a federation is up: {known.profile.name}",
            "`make down` takes it down; `fedbench chaos --here NAME` breaks it",
        )
    return checkout.ensure_up(_PROFILE, settings, load_experiment(_EXPERIMENT), None)


def _matrix(stack: Stack, recorded: ChaosResults, *, here: bool) -> Matrix:
    from fedbench.engines.containers import startup
    from fedbench.engines.containers.runtime import daemon
    from fedbench.host.chaos.matrix import Matrix
    from fedbench.host.chaos.misbehaviour import start_faulty

    containers = daemon.connect(say)
    matrix = Matrix(
        engines.in_containers(stack),
        stack,
        containers,
        _experiment(stack),
        recorded,
        say,
        _print_row,
    )
    before = startup.starts(stack, containers)
    matrix.repair(before)
    if not here:
        start_faulty(stack, containers)
        matrix.repair(before)
    return matrix


def _experiment(stack: Stack) -> Experiment:
    """Return the experiment for it, of the model that the federation was planned for."""
    return load_experiment(_EXPERIMENT, [f"model={stack.model}"])


def _print_row(row: ChaosRow) -> None:
    verdict = {True: "ok", False: "NOT AS EXPECTED", None: "skipped"}[row.ok]
    for line in (
        f"{row.scenario}: {verdict}",
        f"  expected  {row.expected}",
        f"  seen      {row.seen}",
        *(f"  problem   {problem}" for problem in row.problems),
    ):
        say(line)


def _print_list(scenarios: Sequence[Scenario], *, as_json: bool) -> None:
    if as_json:
        print_json([one.model_dump(mode="json", exclude_defaults=True) for one in scenarios])
        return
    rows = [[one.name, one.fault, one.who, one.description] for one in scenarios]
    print_table(("scenario", "fault", "who", "what is done"), rows)


def _write_table(rows: Sequence[ChaosRow]) -> None:
    path = checkout.places.root / _DOCUMENT
    try:
        document = results.in_markers(path.read_text(encoding="utf-8"), rows)
    except (OSError, ValueError) as error:
        raise FedbenchError(f"{path}: {error}") from None
    replace_text(path, document)
    console.print(f"wrote the table of {len(rows)} scenarios into {path}", highlight=False)
