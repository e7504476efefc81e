"""Where errors leave the program: what, where and the way out on stderr, and an exit code.

Invariant: no traceback unless `--debug`; with `--json` the error's object is stdout's last line.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

import typer

from simenv import errors
from simenv.cli import out

USAGE = 2
INTERRUPTED = 130
# typer brings its own copy of click, or click itself; both have the base of all usage errors here.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def guarded(call: Callable[[], object], as_json: bool, debug: bool) -> int:
    """Run `call`; the exit code, after the error (if any) has been shown."""
    try:
        code = call()
        out.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except (out.ReaderGone, BrokenPipeError):
        out.abandon()
        return 0  # the reader has seen enough
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
    except Exception as error:  # noqa: BLE001 - the last border: nobody above to hand it to
        if debug:
            traceback.print_exc()
        what = f"{type(error).__name__}: {error}"
        hint = (
            "" if isinstance(error, OSError) else "this is a fault of simenv; --debug shows where"
        )
        show_error(errors.SimenvError(what, hint=hint), as_json)
        return 1
    return code if isinstance(code, int) else 0


def as_object(error: errors.SimenvError) -> dict[str, object]:
    """The error as `--json` prints it."""
    shown: dict[str, object] = {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "retryable": error.retryable,
    }
    for extra in ("line", "column", "reason", "host", "log", "retry_after_s", "task"):
        if hasattr(error, extra):
            shown[extra] = getattr(error, extra)
    if isinstance(error, errors.BatchRefused):
        shown["errors"] = [{"index": each.index, **as_object(each)} for each in error.errors]
    return shown


def show_error(error: errors.SimenvError, as_json: bool = False) -> None:
    """What, where and the way out on stderr; with `as_json` the object on stdout too."""
    try:
        out.flush()
    except (OSError, out.ReaderGone):
        out.abandon()  # a full disk, for example: the error itself must still be heard
    out.note(f"{out.paint('error', sys.stderr)}: {out.clean(error.message, keep=chr(10))}")
    for where in getattr(error, "__notes__", ()):
        out.note(f"  {out.clean(where)}")
    if error.hint:
        hint = out.clean(error.hint, keep="\n").replace("\n", "\n  ")
        out.note(f"  {hint}")
    if as_json:
        try:
            out.json_line({"error": as_object(error)})
            out.flush()
        except (OSError, out.ReaderGone):
            out.abandon()
