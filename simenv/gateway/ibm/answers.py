"""Answers in the form of IBM's quantum compute API: jobs, metrics, sessions, usage and errors.

Pure: records of the store and figures of the service in, JSON values out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from simenv import errors
from simenv.client.tasks.progress import progress_of
from simenv.gateway.ibm.backends import Plain, date_of
from simenv.gateway.ibm.jobs import Job, SessionRecord
from simenv.model import TaskState
from simenv.model.accounts import ShareRow, UsageRow
from simenv.model.views import TaskInfo

# Code of each error in IBM's registry, and the status of HTTP.
_CODES: tuple[tuple[type[errors.SimenvError], int, int], ...] = (
    (errors.NotFoundError, 1007, 404),
    (errors.NotAllowedError, 1200, 403),
    (errors.KeyRefusedError, 1201, 401),
    (errors.InsufficientError, 1202, 429),
    (errors.KeyConflictError, 1002, 409),
    (errors.NoServiceError, 1004, 503),
    (errors.OptionError, 1002, 400),
    (errors.ProgramError, 1002, 400),
    (errors.LimitExceededError, 1002, 400),
    (errors.NotReservedError, 1002, 400),
    (errors.InfeasibleError, 1002, 400),
)
_INTERNAL = (9999, 500)


def error(failure: errors.SimenvError) -> tuple[int, Plain]:
    """Status of HTTP and body of an error."""
    code, status = next((row[1:] for row in _CODES if isinstance(failure, row[0])), _INTERNAL)
    return status, error_body(code, failure.message, failure.hint)


def error_body(code: int, message: str, solution: str = "") -> Plain:
    """Body of an error: `errors` is read by QRMI and other programs, `error` by
    qiskit-ibm-runtime."""
    entry = {"code": code, "message": message, "solution": solution, "more_info": ""}
    shown = f"{message} ({solution})" if solution else message
    return {"errors": [entry], "error": {"code": code, "message": shown}, "trace": ""}


def job(record: Job) -> Plain:
    """A job, without its parameters."""
    result: Plain = {
        "id": record.id,
        "backend": record.backend,
        "state": {"status": record.status},
        "status": record.status,
        "program": {"id": record.program},
        "created": date_of(record.created_s),
        "runtime": record.runtime or "simenv",
        "cost": record.cost,
        "tags": list(record.tags),
        "user_id": record.user or "owner",
        "private": record.private,
        "remote_storage": None,
        "usage": {"seconds": record.quantum_s, "quantum_seconds": record.quantum_s},
        "estimated_running_time_seconds": record.quantum_s,
        "estimated_max_running_time_seconds": float(record.cost),
    }
    if record.session:
        result["session_id"] = record.session
    if record.calibration_id:
        result["calibration_id"] = record.calibration_id
    if record.ended_s:
        result["ended"] = date_of(record.ended_s)
    if record.reason:
        result["state"] |= {"reason": record.reason, "reason_code": record.reason_code}
    return result


class JobForecast(NamedTuple):
    """Forecast of a job. `position`: its place in the queue, from 1; `start_s`, `end_s`: expected
    start and end, seconds since 1970. None: not known, or past."""

    position: int | None = None
    start_s: float | None = None
    end_s: float | None = None


def metrics(record: Job, forecast: JobForecast) -> Plain:
    """Times, usage and forecast of a job."""
    position, start_s, end_s = forecast
    seconds, ended = record.quantum_s, not record.is_pending
    return {
        "timestamps": {
            "created": date_of(record.created_s),
            "running": date_of(record.started_s) if record.started_s else None,
            "finished": date_of(record.ended_s) if record.ended_s else None,
        },
        "usage": {
            "status": "final" if ended else "pending",
            "seconds": seconds,
            "quantum_seconds": seconds,
            "qpu_charge_time_seconds": seconds,
        },
        "bss": {"seconds": seconds},
        "executions": len(record.tasks),
        "position_in_queue": position,
        "position_in_provider": position,
        "estimated_start_time": date_of(start_s) if start_s is not None else None,
        "estimated_completion_time": date_of(end_s) if end_s is not None else None,
        "tags": list(record.tags),
        "private": record.private,
    }


def logs(record: Job, infos: Sequence[TaskInfo]) -> str:
    """A line for each task: worker and pool, progress, or the reason of its failure; and for each
    warning of their results."""
    lines = [
        f"{info.id} {info.state} on {info.worker or '-'} of {info.pool or '-'}"
        f" after {info.time_s:.3f} s {info.reason or _progress(info)}".rstrip()
        for info in infos
    ]
    lines += [f"warning: {text}" for text in record.warnings]
    if record.reason:
        lines.append(f"{record.status}: {record.reason}")
    return "".join(f"{line}\n" for line in lines)


def _progress(info: TaskInfo) -> str:
    """Return the progress of a running task; "" for others."""
    text = str(progress_of(info)) if info.state is TaskState.RUNNING else ""
    return f"({text})" if text else ""


def session(record: SessionRecord, now_s: float) -> Plain:
    """A session."""
    closed = record.is_closed(now_s)
    state = "closed" if closed else "active" if record.activated_s else "open"
    end_s = record.closed_s or min(now_s, record.expires_s)
    result = {
        "id": record.id,
        "backend_name": record.backend,
        "mode": record.mode,
        "state": state,
        "accepting_jobs": record.accepting and not closed,
        "max_ttl": record.max_ttl_s,
        "active_ttl": max(0, round(record.expires_s - now_s)),
        "interactive_ttl": record.max_ttl_s,
        "started_at": date_of(record.created_s),
        "elapsed_time": round(end_s - record.activated_s) if record.activated_s else 0,
        "user_id": record.user or "owner",
        "timestamps": [{"status": "open", "timestamp": date_of(record.created_s)}],
    }
    moments = {
        "activated_at": record.activated_s,
        "closed_at": end_s if closed else 0.0,
        "last_job_started": record.job_started_s,
        "last_job_completed": record.job_ended_s,
    }
    return result | {name: date_of(time_s) for name, time_s in moments.items() if time_s}


def usage(shares: Sequence[ShareRow], rows: Sequence[UsageRow], limit_units: float) -> Plain:
    """Usage of an account in this month. With a budget, `limit_units` above 0: billing units of the
    budget; else seconds on devices."""
    left = [row.left_units for row in shares if row.left_units >= 0]
    if limit_units and left:
        consumed = max(0.0, limit_units - left[0])
        reached = left[0] <= 0
        limits: Plain = {
            "usage_limit_seconds": round(limit_units),
            "usage_remaining_seconds": max(0, round(left[0])),
        }
    else:
        consumed, reached = sum(row.used.device_us for row in rows) / 1e6, False
        limits = {}
    return {"usage_consumed_seconds": round(consumed), "usage_limit_reached": reached, **limits}


def workload(record: Job) -> Plain:
    """A job in the list of workloads."""
    return {
        "id": record.id,
        "mode": "job" if not record.session else "session",
        "backend": record.backend,
        "status": record.status.lower(),
        "created_at": date_of(record.created_s),
        "ended_at": date_of(record.ended_s) if record.ended_s else None,
        "usage_seconds": record.quantum_s,
        "tags": list(record.tags),
        "user_id": record.user or "owner",
        "session_id": record.session or None,
        "program": record.program,
    }


def workloads(records: Sequence[Job], count: int, limit: int, offset: int) -> Plain:
    """A page of workloads. `next`, `previous`: the cursors of the pages around it, if there are
    any."""
    page: Plain = {"workloads": [workload(each) for each in records], "total_count": count}
    page["limit"] = limit
    if offset + len(records) < count:
        page["next"] = str(offset + limit)
    if offset:
        page["previous"] = str(max(0, offset - limit))
    return page


def any_list(name: str, items: Sequence[Any], count: int, limit: int, offset: int) -> Plain:
    """A page of a listing: QRMI needs all three numbers."""
    return {name: list(items), "count": count, "limit": limit, "offset": offset}
