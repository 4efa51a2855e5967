"""The commands; the only package that prints or exits."""

from __future__ import annotations

import sys
import traceback

import click
import typer

from fedbench.cli import chaos, checkout, federation, host, look, run, study, watch
from fedbench.cli.output import accept_any_text, say
from fedbench.errors import FedbenchError, HostError
from fedbench.records.files import is_disk_full

app = typer.Typer(
    help="A federation of unequal computers on one machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
COMMANDS = (  # in the order of --help
    federation.up,
    run.run,
    study.sweep,
    federation.plan,
    study.fidelity,
    study.reproduce,
    federation.status,
    watch.top,
    watch.logs,
    federation.down,
    federation.join,
    look.data,
    look.devices,
    look.report,
    host.calibrate,
    host.profile_this_device,
    study.compare,
    chaos.chaos,
)
for command in COMMANDS:
    app.command()(command)


def main() -> None:
    """Run a command; turn errors into a message and an exit code."""
    accept_any_text()
    try:
        code = app(standalone_mode=False) or 0
    except FedbenchError as error:
        say(f"error: {error.message}")
        if error.hint:
            say(f"hint: {error.hint}")
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        say("interrupted")
        code = 130
    except Exception as error:
        code = _unexpected(error)
    sys.exit(code)


def _unexpected(error: Exception) -> int:
    if is_disk_full(error):
        say(f"error: no room is left on a disk: {error}")
        say("hint: make room; what was whole before still is")
        return HostError.exit_code
    # A defect of fedbench: its traceback is for the bug report.
    log = checkout.places.state / "crash.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(traceback.format_exc())
    say(f"error: fedbench failed: {type(error).__name__}: {error}")
    say(f"hint: this is a defect; please report it with {log}")
    return 70
