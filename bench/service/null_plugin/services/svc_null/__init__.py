"""A QPM plugin without work: `sync_run` returns a record of the usual size at once.

A call of it takes the time of the host and the transport alone; the benchmark qpm_overhead measures
simenv's overhead above that.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

COUNTS = {f"{outcome:04b}": 64 for outcome in range(16)}
TIMES = (
    "creation_time", "resources_consumed_time", "launch_time", "exec_time", "completion_time",
    "cq_enqueue_time", "cq_dequeue_time",
)  # fmt: skip


class QPM:
    """A service of both revisions with the methods that the benchmark calls."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def query(self) -> Any:
        """Return a service record; its properties say that revision 2 is served too."""
        from defw_agent_info import Capability, DEFwServiceInfo

        kind = type(self)
        values = ("QPM", "nothing", kind.__name__, kind.__module__, Capability(2, 2, ""), -1)
        try:
            return DEFwServiceInfo(*values, properties={"service_id": "nothing"})
        except TypeError:  # a DEFw of revision 1
            return DEFwServiceInfo(*values)

    def is_ready(self, token: str | None = None) -> dict[str, bool]:  # noqa: ARG002
        return {"ready": True}

    def reserve(self, *_: Any, **__: Any) -> None: ...

    def release(self, *_: Any, **__: Any) -> None: ...

    def sync_run(self, info: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        """Return a record with the fields of the revision that `info` names. Raises ValueError for
        a negative number of shots."""
        record = {"cid": str(uuid.uuid4()), "rc": 0, **dict.fromkeys(TIMES, time.time())}
        if info["num_shots"] < 0:
            raise ValueError(info["num_shots"])
        if "revision1" in info:
            return {**record, "result": COUNTS}
        full = {**record, "result": {"counts": COUNTS}, "outcome": "COMPLETED", "qtask_id": 1}
        settings = {"lifecycle_state": "completed", "state": "completed", "outcome": "COMPLETED"}
        return {**settings, "cid": record["cid"], "qtask_id": 1, "result": full}


svc_info = {
    "name": "QPM", "module": __name__, "description": "nothing", "version": 1.0,
    "instance_mode": "singleton",
}  # fmt: skip
service_classes = [QPM]


def initialize() -> None: ...  # DEFw calls it


def uninitialize() -> None: ...  # and this
