"""The page of errors, generated from the error classes of simenv."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib import import_module

from simenv.errors import SimenvError

# Modules with classes of errors that users meet; the others add no code.
MODULES = (
    "simenv.errors",
    "simenv.cli.devices.overview",
    "simenv.calibration.data",
    "simenv.calibration.fit.calibrate",
    "simenv.qpm.contract",
    "simenv.qpm_check.target",
)
_INTRODUCTION = """# Errors

Every error is a subclass of `simenv.errors.SimenvError`. Its first line says what is wrong, with
the value and the limit; its `hint` is the way out of this case. The command line prints both on
stderr, and with `--json` an object with `code`, `message`, `hint` and `retryable` on stdout. This
page is generated from the classes.

| exit status | meaning |
|---|---|
| 0 | success |
| 1 | the task, or what was checked, failed |
| 2 | the call has to be corrected |
| 3 | refused; the message has the limit |
| 4 | it does not exist |
| 5 | no service was reached |
| 124 | the time of the caller is over |
| 130 | interrupted |

"May succeed later" says whether the same call can succeed without a change (`retryable`). An error
with `maybe_accepted` ended a call to which no answer came: repeat it with the same idempotency key.
"""
_REASONS = """
## Reasons of failed tasks

`TaskFailedError.reason`, and the column REASON of `simenv queue --done`.

| reason | meaning | cure |
|---|---|---|
"""
# What the service and workers say of a task that ended without a result, in the order of the page.
REASONS = {
    "engine": (
        "The engine refused or failed.",
        "read the message; `simenv explain CIRCUIT` names other engines",
    ),
    "out_of_memory": (
        "The worker had no memory for the circuit.",
        "take `precision='single'`, the engine `mps`, or a pool with more ranks",
    ),
    "poison": (
        "Workers died while they ran this task, more often than the limit.",
        "read the end of the log in the error; `simenv doctor` checks the machine",
    ),
    "result_store": (
        "The result could not be written.",
        "free space with `simenv prune`, then submit it again",
    ),
    "damaged": (
        "The record of the submission in the journal was damaged, so the task cannot be run.",
        "submit it again; `simenv admin check` names damage, the kernel's log a failing disk",
    ),
    "program": ("The circuit cannot be read.", "correct the circuit as the message says"),
    "limit": (
        "The budget of the account was spent, or a value or a pulse sequence is too large.",
        "`simenv usage` shows the budget; write large values to a file",
    ),
    "option": (
        "An option of a pulse sequence does not suit it.",
        "change the option that the message names",
    ),
    "infeasible": (
        "The device of the task cannot run its pulse sequence.",
        "change the sequence, or take another device",
    ),
    "dependency": (
        "A task that this one comes after failed.",
        "mend that task, which the message names, and submit both again",
    ),
    "reservation": (
        "The reservation of the task ended.",
        "reserve for longer, or submit without the reservation",
    ),
    "job_time": (
        "No job of the batch system is long enough for the task.",
        "raise the time of the pool's jobs, or lower `run_timeout_s`",
    ),
    "queue_timeout": ("It waited for longer than `queue_timeout_s`.", "raise `queue_timeout_s`"),
    "run_timeout": ("It ran for longer than `run_timeout_s`.", "raise `run_timeout_s`"),
    "cancelled": ("It was cancelled.", "`simenv receipt TASK` says by whom"),
    "machine_refused": (
        "The real device did not accept the circuit: nothing ran.",
        "read the provider's message; compile for the device",
    ),
    "machine_failed": (
        "The real device accepted the circuit and ended without a result.",
        "submit it again, with the provider's agreement: it may be charged twice",
    ),
    "bad_answer": (
        "The device's answer cannot be the result of the circuit.",
        "check the provider or the program behind the pool",
    ),
    "calibration_stale": (
        "The circuit was compiled for a calibration that is no longer in force.",
        "submit it again, or with `compile='auto'`",
    ),
    "truncation": (
        "A tensor network discarded more weight than `tolerance` allows.",
        "raise the bond dimension, or `tolerance`",
    ),
    "other_outcome": (
        "A part of a circuit that ran again gave other outcomes than before.",
        "run the circuit from its beginning",
    ),
    "function": ("A function of the user raised an exception.", "read its traceback in the error"),
    "stopped": ("The worker was stopped.", "submit it again"),
}


def error_classes() -> list[type[SimenvError]]:
    """Return the classes with a code of their own, in the order of their modules."""
    found: dict[str, type[SimenvError]] = {}
    for name in MODULES:
        for kind in vars(import_module(name)).values():
            if inspect.isclass(kind) and issubclass(kind, SimenvError) and "code" in vars(kind):
                found.setdefault(kind.code, kind)
    return list(found.values())


def meaning(kind: type) -> str:
    """Return the docstring of a class as one line of a table."""
    return " ".join((inspect.getdoc(kind) or "").split()).replace("|", "\\|")


def _rows() -> Iterator[str]:
    yield "\n## Classes\n"
    yield "| class | code | exit status | may succeed later | meaning | cure |"
    yield "|---|---|---|---|---|---|"
    for kind in sorted(error_classes(), key=lambda kind: kind.__name__):
        later = "yes" if kind.retryable else "no"
        words = (f"`{kind.__name__}`", f"`{kind.code}`", str(kind.exit_code), later)
        yield "| " + " | ".join([*words, meaning(kind), kind.remedy]) + " |"


def error_page() -> str:
    """Return the page as Markdown."""
    rows = "\n".join(_rows())
    reasons = "\n".join(f"| `{name}` | {text} | {cure} |" for name, (text, cure) in REASONS.items())
    return f"{_INTRODUCTION}{rows}\n{_REASONS}{reasons}\n"
