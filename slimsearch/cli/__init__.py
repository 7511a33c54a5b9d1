"""The command line: one file for each command; each parses, calls, prints and sets the exit code.

0 ok, 1 our bug, 2 usage, 3 input refused, 4 run folder locked, damaged or incompatible,
5 resources gone but resumable, 130/143 interrupted.
"""

import os
import sys
import traceback
from typing import Annotated

import typer

from slimsearch.cli import (
    bench,
    compare,
    doctor,
    eval_,
    export,
    flops,
    generate,
    list_,
    narrow,
    paper,
    plan,
    prune,
    report,
    resume,
    run,
    show,
    status,
    sweep,
    tune,
)
from slimsearch.cli.stopping import stoppable
from slimsearch.errors import InputError, SlimsearchError, Stopped
from slimsearch.version import __version__

DEBUG = "--debug"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Searches for the best way to prune a LLaVA-style vision-language model.",
    epilog=f"{DEBUG}, anywhere on the line, shows the traceback of an error.",
)
app.command("run")(run.command)
app.command("resume")(resume.command)
app.command("plan")(plan.command)
app.command("status")(status.command)
app.command("show")(show.command)
app.command("prune")(prune.command)
app.command("narrow")(narrow.command)
app.command("tune")(tune.command)
app.command("compare")(compare.command)
app.command("sweep")(sweep.command)
app.command("export")(export.command)
app.command("generate")(generate.command)
app.command("flops")(flops.command)
app.command("bench")(bench.command)
app.command("paper")(paper.command)
app.command("report")(report.command)
app.command("eval")(eval_.command)
app.command("list")(list_.command)
app.command("doctor")(doctor.command)


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"slimsearch {__version__}")
        raise typer.Exit


@app.callback()
def _whole_line(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Say which it is."),
    ] = False,
) -> None:
    """What stands before a command."""


def main() -> None:
    """The entry point of `slimsearch`."""
    debug = DEBUG in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != DEBUG]
    try:
        with stoppable():
            app(args=arguments)
    except (SlimsearchError, Stopped) as error:
        _complain(str(error), debug)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _complain("interrupted.", debug)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)  # whoever read our output has seen enough
    except Exception as error:
        said, code = _unforeseen(error)
        _complain(said, debug)
        sys.exit(code)


def _unforeseen(error: Exception) -> tuple[str, int]:
    """What is said of it, and the exit code: a place that the system keeps from us is no bug."""
    if isinstance(error, OSError) and isinstance(error.filename, str | bytes):
        return (
            f"{os.fsdecode(error.filename)} cannot be opened: {error.strerror}. Correct the path, "
            f"or the rights to it and to the folders that it is in."
        ), InputError.exit_code
    return f"{type(error).__name__}: {error} (a bug of slimsearch; {DEBUG} shows where)", 1


def _complain(message: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(f"slimsearch: {' '.join(message.split())}", file=sys.stderr)
