"""Errors that simenv raises to its users: one class tree; each class states its meaning.

A message names the fault, the value and the limit; `hint` names the remedy of this case, `remedy`
that of the class, for the index of errors. `code` is the stable name of the class on the wire and
in `--json`; `retryable` is True if the same call may succeed later; `exit_code` is the exit status
of the command line (1 failed, 2 usage, 3 refused, 4 not found, 5 no service, 124 timeout).
`maybe_accepted` is True if the service may have accepted the call all the same; `tasks` are the ids
that it certainly gave.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, TypeVar

import msgspec

# What decoding bytes from outside raises: msgspec lets nesting and texts that are no UTF-8 through.
DECODE_ERRORS = (msgspec.MsgspecError, UnicodeError, RecursionError)


class SimenvError(Exception):
    """Base class of all errors that simenv raises."""

    code: ClassVar[str] = "error"
    remedy: ClassVar[str] = "read the message and its hint"
    retryable: bool = False
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "", index: int = -1) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.index = index  # index of the refused item of a batch; -1: the call as a whole
        # No answer came to what was sent: the service may have accepted it. See `unanswered`.
        self.maybe_accepted = False
        self.tasks: tuple[str, ...] = ()  # that were accepted, and continue; see `while_waiting`

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class SimenvWarning(UserWarning):
    """A result is not of what was asked, such as noise that does not act: a text of
    `Result.warnings`."""


class OptionError(SimenvError):
    """An option has an unknown name or a value that is not allowed; the caller must change the
    call. `option`, `value`: the option of `Client.submit` that the message is about; "": none."""

    code = "option"
    remedy = "correct the option; the hint lists the values that are allowed"
    exit_code = 2

    def __init__(
        self,
        message: str = "",
        *,
        hint: str = "",
        index: int = -1,
        option: str = "",
        value: object = None,
        expected: str = "",
    ) -> None:
        """`option`, `value`, `expected`: in place of `message` and `hint`."""
        super().__init__(message or f"{option}={value!r:.80}", hint=hint or expected, index=index)
        self.option = option
        self.value = value


class InternalError(SimenvError):
    """The service failed to answer by a fault of its own, which its log describes. A call that
    changes something may have been made in part."""

    code = "internal"
    remedy = "read `simenv logs` or `service.log`; report the fault with `simenv doctor --json`"


class NoDeviceError(OptionError):
    """An option that needs an emulated device was given without one."""

    code = "no_device"
    remedy = "add `device=NAME`; `simenv devices` lists the names"


class ConfigError(SimenvError):
    """`simenv.toml` or a SIMENV_* variable has an invalid value; its author must correct it."""

    code = "config"
    remedy = (
        "correct the key or variable that the message names; the page Configuration has all of them"
    )
    exit_code = 2


class ProgramError(SimenvError):
    """The circuit cannot be read or sent. `line` and `column` (from 1; 0: unknown) locate the
    fault."""

    code = "program"
    remedy = "correct the circuit at the line and column that the message names"
    exit_code = 2

    def __init__(
        self, message: str, *, hint: str = "", index: int = -1, line: int = 0, column: int = 0
    ) -> None:
        super().__init__(message, hint=hint, index=index)
        self.line = line
        self.column = column


class LimitExceededError(SimenvError):
    """A fixed limit on a size or number was exceeded; reduce the input or split it."""

    code = "limit"
    remedy = "make the input smaller or split it; the message has the limit"
    exit_code = 3


class InfeasibleError(SimenvError):
    """This environment can never run the task; choose another engine, precision or machine."""

    code = "infeasible"
    remedy = (
        "take the engine, precision or pool that the hint names; `simenv explain CIRCUIT` "
        "shows what each needs"
    )
    exit_code = 3


class InsufficientError(SimenvError):
    """The resources that the task needs are in use; the same call may succeed later, at best
    `retry_after_s` seconds later (0: not known)."""

    code = "insufficient"
    remedy = (
        "wait `retry_after_s` seconds and call again, or free what is in use; `simenv pools` "
        "shows it"
    )
    retryable = True
    exit_code = 3
    _usual_retry_s: ClassVar[float] = 0.0

    def __init__(
        self, message: str, *, hint: str = "", index: int = -1, retry_after_s: float = 0.0
    ) -> None:
        super().__init__(message, hint=hint, index=index)
        self.retry_after_s = retry_after_s or self._usual_retry_s


class QueueFullError(InsufficientError):
    """The queue is full; submit again after `retry_after_s` seconds."""

    code = "queue_full"
    remedy = "submit again after `retry_after_s` seconds, or raise the limit of queued tasks"
    _usual_retry_s = 1.0


class NotReservedError(SimenvError):
    """The reservation does not exist, is over, belongs to another owner or does not cover the
    task."""

    code = "reservation"
    remedy = (
        "`simenv queue` and `client.reservations()` show those that exist; make a new one "
        "with `client.reserve`"
    )
    exit_code = 3


class KeyRefusedError(SimenvError):
    """The service does not accept this key (revoked or unknown), or the key is for another
    service."""

    code = "key_refused"
    remedy = "ask the owner for a key (`simenv keys add`), or use the key file of this environment"
    exit_code = 3


class NotAllowedError(SimenvError):
    """The role of the key does not permit the request; the role of an admin does."""

    code = "not_allowed"
    remedy = "ask an administrator, or use a key with the role that the message names"
    exit_code = 3


class KeyConflictError(SimenvError):
    """The idempotency key was used before with other content; choose another key."""

    code = "key_conflict"
    remedy = "give each different submission an idempotency key of its own"
    exit_code = 3


class BatchRefusedError(SimenvError):
    """A batch is accepted or refused as a whole; `errors` holds one error for each bad index."""

    code = "batch"
    remedy = (
        "correct each index that `errors` names, and submit the batch again: nothing of it "
        "was accepted"
    )
    exit_code = 3

    def __init__(self, message: str, errors: tuple[SimenvError, ...], *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.errors = errors


class NotFoundError(SimenvError):
    """No task, pool or worker of that name exists, or its record was removed."""

    code = "not_found"
    remedy = "list what exists: `simenv queue --done`, `simenv pools`, `simenv workers`"
    exit_code = 4


class NoServiceError(SimenvError):
    """No service could be reached at the given address."""

    code = "no_service"
    remedy = (
        "start one with `simenv up`, or name another with `--name`, `--service` or SIMENV_SERVICE"
    )
    retryable = True
    exit_code = 5


class ShuttingDownError(NoServiceError):
    """The service ends and accepts nothing new; the same call may succeed at the next service."""

    code = "shutting_down"
    remedy = "the client waits for the next service; else call again when `simenv status` answers"


class ServiceLostError(NoServiceError):
    """The service answered before and does not answer now; its last message came `last_seen_s` s
    ago."""

    code = "service_lost"
    remedy = (
        "`simenv up` starts it again, and accepted tasks continue; repeat calls with the "
        "same idempotency key"
    )

    def __init__(
        self, message: str, *, hint: str = "", index: int = -1, last_seen_s: float = 0.0
    ) -> None:
        super().__init__(message, hint=hint, index=index)
        self.last_seen_s = last_seen_s


class StartFailedError(SimenvError):
    """A service or worker process did not become ready; the message quotes the end of its log."""

    code = "start_failed"
    remedy = "read the quoted log; `simenv doctor` finds what is missing on this machine"
    retryable = True


class VersionMismatchError(SimenvError):
    """Two processes have different versions of simenv; the message names both."""

    code = "version"
    remedy = "install the same version of simenv on both sides; `simenv --version` shows it"
    exit_code = 3


class ProtocolError(SimenvError):
    """A message violates the protocol: a bug, or a peer that is not simenv."""

    code = "protocol"
    remedy = (
        "check that the address is that of a simenv service; report it if both sides are simenv"
    )


class JournalError(SimenvError):
    """The journal cannot be opened, read or written; the message names the file and the remedy."""

    code = "journal"
    remedy = (
        "free or repair the disk of the journal; `simenv admin check` examines it, and `simenv up` "
        "continues with all that is intact"
    )
    retryable = True


class StoreError(SimenvError):
    """A result file cannot be written or read; the message names the file and the remedy."""

    code = "result_store"
    remedy = (
        "free space with `simenv prune`, or choose another result folder; the task runs "
        "again where it can"
    )
    retryable = True


class TaskFailedError(SimenvError):
    """An accepted task ended FAILED; `reason`: `poison`, `out_of_memory`, `engine` ..."""

    code = "task_failed"
    remedy = "the table of reasons below has a remedy for each `reason`"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        index: int = -1,
        reason: str = "engine",
        host: str = "",
        rank: int = 0,
        log: str = "",
    ) -> None:
        super().__init__(message, hint=hint, index=index)
        self.reason = reason
        self.host = host
        self.rank = rank
        self.log = log


class TaskCancelledError(SimenvError):
    """The task was cancelled before it had a result."""

    code = "task_cancelled"
    remedy = "submit it again if it is still needed; `simenv receipt TASK` says who cancelled it"


class TaskExpiredError(SimenvError):
    """The task passed its queue or run timeout, or the budget of its account was spent."""

    code = "task_expired"
    remedy = "raise `queue_timeout_s` or `run_timeout_s`, or ask for more budget"


class SlurmError(SimenvError):
    """A command of Slurm failed, is not there, or has not answered; or slurmctld has not read its
    configuration."""

    code = "slurm"
    remedy = "`scontrol ping` says whether slurmctld answers; its log has the reason"


class SlurmFileError(ConfigError):
    """A file in the folder of slurm.conf cannot be read or written, or has another content than
    simenv writes."""

    code = "slurm_file"
    remedy = (
        "`simenv slurm install` writes what is missing; its folder needs SlurmUser as its owner"
    )


class SlurmAwayError(SlurmError):
    """slurmctld does not answer, or not in time; the same call may succeed later."""

    code = "slurm_away"
    remedy = "call again when `scontrol ping` says that slurmctld answers"
    retryable = True
    exit_code = 75  # EX_TEMPFAIL of sysexits.h


class TimedOutError(SimenvError, TimeoutError):
    """The timeout of the caller has passed; the task goes on."""

    code = "timeout"
    remedy = "call again to go on waiting, or cancel the task"
    retryable = True
    exit_code = 124

    def __init__(self, message: str, *, hint: str = "", index: int = -1, task: str = "") -> None:
        super().__init__(message, hint=hint, index=index)
        self.task = task  # id of the task; "": the error is not about one task


E = TypeVar("E", bound=SimenvError)


def unanswered(error: E, fate: str, remedy: str) -> E:
    """Return a copy of the error that ended a call whose request was sent and has no answer, with
    `maybe_accepted`. `fate`: what may have become of it; `remedy`: how to repeat the call."""
    if error.maybe_accepted:
        return error
    result = copy.copy(error)
    result.maybe_accepted = True
    result.message = f"{error.message}; {fate}"
    result.args = (result.message,)
    result.hint = f"{remedy}; {error.hint}" if error.hint else remedy
    return result


SHOWN_TASKS = 8


def while_waiting(error: E, tasks: Sequence[str]) -> E:
    """Return a copy of the error that ended the wait for tasks, which were accepted and continue:
    with their ids and `maybe_accepted`. The wait may be repeated, but no submission."""
    if error.tasks or not tasks:
        return error
    result = copy.copy(error)
    result.tasks, result.maybe_accepted = tuple(tasks), True
    shown = ", ".join(tasks[:SHOWN_TASKS])
    shown += f" and {len(tasks) - SHOWN_TASKS} more" if len(tasks) > SHOWN_TASKS else ""
    are = "task {} was accepted and continues" if len(tasks) == 1 else "tasks {} were accepted"
    result.message = f"{error.message}; {are.format(shown)}"
    result.args = (result.message,)
    remedy = (
        f"`simenv result {tasks[0]}` or client.task({tasks[0]!r}).result() has its result;"
        " submitted again it would run twice"
    )
    result.hint = f"{remedy}; {error.hint}" if error.hint else remedy
    return result


def by_code(code: str) -> type[SimenvError]:
    """Return the error class of a wire code; SimenvError for an unknown code of a newer version."""
    return _BY_CODE.get(code, SimenvError)


def _tree(base: type[SimenvError]) -> list[type[SimenvError]]:
    return [base] + [leaf for child in base.__subclasses__() for leaf in _tree(child)]


_BY_CODE: dict[str, type[SimenvError]] = {kind.code: kind for kind in _tree(SimenvError)}


# An option of `Client.submit` in a text: NAME= or NAME=LITERAL; capitals stand for any value. Keys
# of a pool, as in NAME:device=DEVICE,workers=2, are none.
_OPTION = re.compile(
    r"(?<![:,\w])([a-z_]+)=(None|True|False|\.\.\.|[A-Z]+\b|-?\d[\d_.e+-]*|'[^']*'|\"[^\"]*\"|\([^()]*\)|\[[^\]]*\]|\{(?:[^{}]|\{[^{}]*\})*\})?"
    r"(?!\w)"
)


def with_names(text: str, names: Mapping[str, Callable[[str], str]]) -> str:
    """Return the text with the options of `Client.submit` named as in another interface. `names`:
    by option, a function from the literal, "" for none, to the text in its place."""

    def renamed(match: re.Match[str]) -> str:
        shown = names.get(match[1])
        return match[0] if shown is None else shown(match[2] or "")

    return _OPTION.sub(renamed, text)


def rename_options(error: SimenvError, names: Mapping[str, Callable[[str], str]]) -> None:
    """Name options in an error as in another interface; see `with_names`. A text at the beginning
    of the message keeps its quotation marks, since it may have spaces."""
    message, rest = error.message, ""
    option = getattr(error, "option", "")
    if match := re.match(r"([a-z_]+)=(?=['\"])", message):
        option, rest = match[1], f" {message[match.end() :]}"
    elif message.startswith(f"{option} "):
        rest = with_names(message.removeprefix(option), names)
    if rest and option in names:
        error.message = f"{names[option]('').partition(' ')[0]}{rest}"
    else:
        error.message = with_names(message, names)
    error.hint = with_names(error.hint, names)
