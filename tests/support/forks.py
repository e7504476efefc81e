"""Children that a test forks, as users' programs do."""

import os
import warnings
from collections.abc import Callable


def forked(work: Callable[[], object]) -> int:
    """Run `work()` in a forked child; its exit code: 0, or 1 after an exception."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on fork with threads
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
