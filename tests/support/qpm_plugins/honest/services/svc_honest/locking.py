"""One lock around all that this process sends: the host has none."""

from __future__ import annotations

import threading


def install():
    import defw_workers

    if getattr(defw_workers, "honest_lock", None) is not None:
        return
    lock = defw_workers.honest_lock = threading.Lock()
    for name in ("defw_send_req", "defw_send_rsp"):
        setattr(defw_workers, name, _guarded(lock, getattr(defw_workers, name)))


def _guarded(lock, send):
    def guarded(*given, **named):
        with lock:
            return send(*given, **named)

    return guarded
