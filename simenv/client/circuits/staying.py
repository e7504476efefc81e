"""Qiskit, loaded by a thread that does not end.

Its compiled part (seen with 2.6) keeps things in the thread that loads it first; once that thread
has ended, the process crashes when the next circuit is read. A server that answers each call in a
thread of its own would. Whoever reads a circuit by Qiskit calls `qiskit` before.
"""

from __future__ import annotations

import sys
import threading
from importlib import import_module

_NAME = "qiskit"
_lock = threading.Lock()


def qiskit() -> None:
    """It is loaded when this returns. ImportError."""
    if getattr(sys.modules.get(_NAME), "__version__", None) is None:
        _load()


def _load() -> None:
    if threading.current_thread() is threading.main_thread():
        import_module(_NAME)
        return
    with _lock:
        if getattr(sys.modules.get(_NAME), "__version__", None) is None:
            done, errors = threading.Event(), list[BaseException]()
            threading.Thread(
                target=_stay, args=(done, errors), name="simenv-qiskit", daemon=True
            ).start()
            done.wait()
            if errors:
                raise errors[0]


def _stay(done: threading.Event, errors: list[BaseException]) -> None:
    try:
        import_module(_NAME)
    except BaseException as error:  # noqa: BLE001 - raised to the one who waits
        errors.append(error)
        done.set()
        return
    done.set()
    threading.Event().wait()
