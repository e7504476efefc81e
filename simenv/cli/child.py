"""A command run in our place: same terminal, same signals, same exit code.

Invariant: from before the child's first instruction until after its last, a signal to us is a
signal to it; we end when it has ended, and never before.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence

NOT_FOUND, NOT_RUNNABLE = 127, 126  # as shells say it
_PASSED_ON = frozenset(
    {
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
    }
)
_SENT_BY_TERMINAL = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGHUP})


def run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a command to its end; its exit code, 128 + n where signal n ended it.

    OSError if it cannot be started. Call it from the main thread.
    """
    watched = _PASSED_ON | {signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    try:
        child = os.posix_spawnp(
            argv[0],
            list(argv),
            dict(environ),
            setsigmask=before,
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # Python ignores these two for itself
        )
        return _until_it_ends(child, watched)
    finally:
        _forget_pending(watched)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _until_it_ends(child: int, watched: frozenset[signal.Signals]) -> int:
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        told = signal.sigwaitinfo(watched)
        if told.si_signo == signal.SIGCHLD:
            continue
        # What a terminal sends goes to its whole foreground group: the child has it already.
        if told.si_pid or told.si_signo not in _SENT_BY_TERMINAL:
            os.kill(child, told.si_signo)


def _forget_pending(watched: frozenset[signal.Signals]) -> None:
    """Signals that came together with the child's end were meant for it, not for us."""
    while signal.sigtimedwait(watched, 0) is not None:
        pass
