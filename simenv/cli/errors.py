"""Errors as the command line shows them: on stderr, with a hint, and as an exit code.

Invariant: no traceback without `--debug`; with `--json` the error's object is the last line of
stdout.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

import typer

from simenv import errors
from simenv.cli.output import terminal

USAGE = 2
INTERRUPTED = 130
# typer has its own copy of click, or uses click; in both, this is the base of all usage errors.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def run_guarded(call: Callable[[], object], as_json: bool, debug: bool) -> int:
    """Run `call` and return the exit code; an error is shown before."""
    try:
        code = call()
        terminal.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except (terminal.ReaderGone, BrokenPipeError):
        terminal.abandon()
        return 0  # the reader closed the pipe
    except typer.Abort:
        return INTERRUPTED
    except errors.SimenvError as error:
        if debug:
            traceback.print_exc()
        show_error(error, as_json)
        return error.exit_code
    except _UsageError as error:
        message = getattr(error, "format_message", error.__str__)()
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "simenv"
        show_error(errors.OptionError(message, hint=f"see: {path} --help"), as_json)
        return USAGE
    except Exception as error:  # noqa: BLE001 - the outermost handler
        if debug:
            traceback.print_exc()
        description = f"{type(error).__name__}: {error}"
        hint = (
            "" if isinstance(error, OSError) else "this is a fault of simenv; --debug shows where"
        )
        show_error(errors.SimenvError(description, hint=hint), as_json)
        return 1
    return code if isinstance(code, int) else 0


def as_object(error: errors.SimenvError) -> dict[str, object]:
    """Return the error as `--json` prints it."""
    shown: dict[str, object] = {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "retryable": error.retryable,
    }
    for extra in ("line", "column", "reason", "host", "log", "retry_after_s", "task"):
        if hasattr(error, extra):
            shown[extra] = getattr(error, extra)
    if isinstance(error, errors.BatchRefusedError):
        shown["errors"] = [{"index": each.index, **as_object(each)} for each in error.errors]
    return shown


def show_error(error: errors.SimenvError, as_json: bool = False) -> None:
    """Print the error, its place and its hint on stderr; with `as_json` also the object on
    stdout."""
    try:
        terminal.flush()
    except (OSError, terminal.ReaderGone):
        terminal.abandon()  # after a full disk, for example, the error must still be shown
    terminal.note(
        f"{terminal.paint('error', sys.stderr)}: {terminal.clean(error.message, keep=chr(10))}"
    )
    for note in getattr(error, "__notes__", ()):
        terminal.note(f"  {terminal.clean(note)}")
    if error.hint:
        hint = terminal.clean(error.hint, keep="\n").replace("\n", "\n  ")
        terminal.note(f"  {hint}")
    if as_json:
        try:
            terminal.json_line({"error": as_object(error)})
            terminal.flush()
        except (OSError, terminal.ReaderGone):
            terminal.abandon()
