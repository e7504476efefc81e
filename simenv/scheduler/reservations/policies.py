"""Admission policies: the cost of work in baseline units, and the capacity that a device may
promise.

Pure functions. One unit is the time of the device's baseline circuit; one credit is one unit.
Figures are whole numbers (nanoseconds, units), so equal values give equal decisions, also after a
replay. Formula of QPM hosts: n1 t1 + n2 t2 + nm tm per shot; see `circuits_ns`. The checks of
requests, profiles and policies reject values with which a decision could fail or overflow.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from simenv import model
from simenv.errors import OptionError
from simenv.model import program, reservations, task_rules

BOUND_NS = 100_000_000  # default bound of reservations with workers


def bound_of(request: model.ReservationRequest) -> int:
    """Return the time within which tasks start while fewer of them run than the reservation has
    workers."""
    return request.bound_ns or (BOUND_NS if request.workers else 0)


ACCEPTED, DELAYED, REJECTED = "accepted", "delayed", "rejected"


class DeviceTerms(msgspec.Struct, frozen=True):
    """Terms of reservations of one device. Versions grow with each change."""

    profile: model.DeviceProfile = model.DeviceProfile()
    profile_version: int = 1
    policy: model.AdmissionPolicy = model.AdmissionPolicy()
    policy_version: int = 1
    # Time of the baseline circuit in ns for a device without a profile; see `circuit_times`.
    # 0: the time follows from the profile.
    modelled_unit_ns: int = 0

    @property
    def unit_ns(self) -> int:
        """Time of the baseline circuit, in ns."""
        return self.modelled_unit_ns or unit_ns(self.profile)


class UnitScale(msgspec.Struct, frozen=True):
    """Unit and time span of a device; those of all devices together may differ."""

    one_ns: int  # a unit
    span_ns: int  # time span of a rate


class CostEstimate(msgspec.Struct, frozen=True):
    """Expected cost of some work."""

    total_ns: int
    units: int


class ReservedCapacity(msgspec.Struct, frozen=True):
    """Capacity that live reservations have of a device."""

    credits: int = 0
    rate: int = 0
    reservations: int = 0


class PolicyVerdict(msgspec.Struct, frozen=True):
    """Verdict of one device on one request; `credits`, `rate`: what it would take, 0: not
    limited."""

    status: str = ACCEPTED
    code: int = model.AdmissionReason.ACCEPTED
    message: str = ""
    credits: int = 0
    rate: int = 0
    available: int = 0
    missing: int = 0  # capacity that a delayed request lacks
    wait_ns: int = 0  # until a repeated request may succeed; 0: unknown


def circuits_ns(work: model.Workload, profile: model.DeviceProfile) -> int:
    """Return the expected time of `work.count` equal circuits in ns. Gates and measurements count
    for each shot; transfer, compilation and overheads once a circuit."""
    gates_1q, gates_2q, measured = work.gates_1q, work.gates_2q, work.measurements
    shot_ns = (
        gates_1q * profile.one_q_gate_ns
        + gates_2q * profile.two_q_gate_ns
        + measured * profile.measurement_ns
    )
    transfer_ns = (
        gates_1q * profile.one_q_transfer_ns
        + gates_2q * profile.two_q_transfer_ns
        + measured * profile.measurement_transfer_ns
    )
    overhead_ns = profile.compile_ns + profile.control_overhead_ns + profile.provider_overhead_ns
    return work.count * (shot_ns * work.shots + transfer_ns + overhead_ns)


def unit_ns(profile: model.DeviceProfile) -> int:
    """Return the time of the baseline circuit in ns."""
    return circuits_ns(msgspec.structs.replace(profile.baseline, count=1), profile)


def units_of(total_ns: int, one_ns: int) -> int:
    """Return a time in baseline units, rounded up, at least one."""
    return max(1, -(-total_ns // one_ns))


def credit_capacity(terms: DeviceTerms) -> int:
    """Return the total credits of a device: as configured, or as many as fit into the time span."""
    profile = terms.profile
    values = terms.policy.total_credits or profile.total_credits
    return values or span_ns(terms) // terms.unit_ns


def rate_capacity(terms: DeviceTerms) -> int:
    """Return the units of each time span: as configured, or as many as fit into it."""
    profile = terms.profile
    values = terms.policy.device_rate or profile.device_rate
    return values or -(-span_ns(terms) // terms.unit_ns)


def span_ns(terms: DeviceTerms) -> int:
    """Return the time span of a rate in ns."""
    return terms.policy.time_span_ns or terms.profile.time_span_ns


def scale(terms: DeviceTerms) -> UnitScale:
    return UnitScale(terms.unit_ns, span_ns(terms))


def budget_ns(request: model.ReservationRequest) -> int:
    """Return the time in ns for quantum work within the requested walltime; 0: none was
    requested."""
    used_ns = request.classical_ns + request.overhead_ns
    return request.walltime_ns - used_ns if request.walltime_ns else 0


def rate_of(units: int, time_span_ns: int, budget: int) -> int:
    """Return the units in each time span with which all units are done within the budget."""
    return -(-units * time_span_ns // budget)


def unlimited(
    _cost: CostEstimate,
    _request: model.ReservationRequest,
    _terms: DeviceTerms,
    _reserved: ReservedCapacity,
) -> PolicyVerdict:
    """Policy `unlimited`: accept every request."""
    return PolicyVerdict()


def credit(
    cost: CostEstimate,
    _request: model.ReservationRequest,
    terms: DeviceTerms,
    reserved: ReservedCapacity,
) -> PolicyVerdict:
    """Policy `credit`: take as many credits as units from a fixed number."""
    total = credit_capacity(terms)
    return _measured(
        cost.units, total, reserved.credits, "credits", model.AdmissionReason.INSUFFICIENT_CREDITS
    )


def rate(
    cost: CostEstimate,
    request: model.ReservationRequest,
    terms: DeviceTerms,
    reserved: ReservedCapacity,
) -> PolicyVerdict:
    """Policy `rate`: take units of each time span, so that all are done within the walltime."""
    budget = budget_ns(request)
    total = rate_capacity(terms)
    if budget <= 0:
        message = (
            f"a walltime of {request.walltime_ns} ns leaves no time for quantum work; a device "
            "with a rate needs walltime_ns above classical_ns + overhead_ns"
        )
        available = max(0, total - reserved.rate)
        return PolicyVerdict(
            REJECTED, model.AdmissionReason.WALLTIME_INFEASIBLE, message, available=available
        )
    needed = rate_of(cost.units, span_ns(terms), budget)
    return _measured(
        needed, total, reserved.rate, "units a time span", model.AdmissionReason.INSUFFICIENT_RATE
    )


def _measured(
    needed: int, total: int, reserved: int, figure: str, short: model.AdmissionReason
) -> PolicyVerdict:
    """Return the verdict on a need of a limited capacity."""
    free = max(0, total - reserved)
    amounts = (needed, 0) if short is model.AdmissionReason.INSUFFICIENT_CREDITS else (0, needed)
    if needed > total:
        message = f"{needed} {figure} are needed; the device has {total} in all"
        return PolicyVerdict(REJECTED, model.AdmissionReason.TOO_LARGE, message, *amounts, free)
    if needed > free:
        message = f"{needed} {figure} are needed, {free} of {total} are free"
        return PolicyVerdict(DELAYED, short, message, *amounts, free, needed - free)
    return PolicyVerdict(ACCEPTED, model.AdmissionReason.ACCEPTED, "", *amounts, free)


Policy = Callable[
    [CostEstimate, model.ReservationRequest, DeviceTerms, ReservedCapacity], PolicyVerdict
]
POLICIES: dict[str, Policy] = {"unlimited": unlimited, "credit": credit, "rate": rate}


def evaluate(
    cost: CostEstimate,
    request: model.ReservationRequest,
    terms: DeviceTerms,
    reserved: ReservedCapacity,
) -> PolicyVerdict:
    """Return the verdict of one device on one valid request."""
    profile, work = terms.profile, request.workload
    for figure, requested, maximum in (
        ("qubits", work.qubits, profile.max_qubits),
        ("shots", work.shots, profile.max_shots),
    ):
        if maximum and requested > maximum:
            message = f"{requested} {figure} are asked for; the device has at most {maximum}"
            return PolicyVerdict(REJECTED, model.AdmissionReason.TOO_LARGE, message)
    if request.walltime_ns and budget_ns(request) <= 0:
        message = f"classical_ns + overhead_ns take all of the walltime of {request.walltime_ns} ns"
        return PolicyVerdict(REJECTED, model.AdmissionReason.WALLTIME_INFEASIBLE, message)
    if profile.concurrent_jobs and reserved.reservations >= profile.concurrent_jobs:
        message = f"the device has {reserved.reservations} reservations, which is its maximum"
        return PolicyVerdict(DELAYED, model.AdmissionReason.OVER_LIMIT, message, missing=1)
    return POLICIES[terms.policy.name](cost, request, terms, reserved)


MOST = 2**62  # bound of any figure, given or derived
MAX_TTL_NS = task_rules.MAX_SECONDS * 10**9
MAX_METADATA = 64
MAX_METADATA_BYTES = 2_048
KINDS = ("quantum", "hybrid")
BASELINE_FIELDS = ("qubits", "depth", "gates_1q", "gates_2q", "measurements", "shots")


def check_profile(device: str, profile: model.DeviceProfile) -> None:
    """Raise OptionError, with the field, its value and its range, for an invalid profile."""
    for name in profile.__struct_fields__:
        value = getattr(profile, name)
        if isinstance(value, int):
            _check_figure(f"{_device_label(device)}: {name}", value)
    _check_text(f"{_device_label(device)}: external_device_id", profile.external_device_id)
    if profile.default_ttl_ns < 1 or profile.default_ttl_ns > MAX_TTL_NS:
        text = f"{_device_label(device)}: default_ttl_ns = {profile.default_ttl_ns}"
        raise OptionError(text, hint=f"1 to {MAX_TTL_NS} ns")
    _check_workload(f"{_device_label(device)}: baseline", profile.baseline)
    one_ns = unit_ns(profile)
    if not 0 < one_ns <= MOST:
        text = f"{_device_label(device)}: its baseline circuit would take {one_ns} ns"
        raise OptionError(text, hint=f"times and counts that give 1 to {MOST} ns")


def check_policy(device: str, policy: model.AdmissionPolicy, profile: model.DeviceProfile) -> None:
    """Raise OptionError if the policy is unknown, or its capacity or time span is not set."""
    if policy.name not in POLICIES:
        text = f"{_device_label(device)}: admission policy {policy.name[:64]!r} is not known"
        raise OptionError(text, hint=f"one of: {', '.join(POLICIES)}")
    values = ("total_credits", "device_rate", "time_span_ns")
    for name in values:
        _check_figure(f"{_device_label(device)}: {name}", getattr(policy, name))
    allowed = {"credit": values[:1], "rate": values[1:], "unlimited": ()}[policy.name]
    for name in values:
        if getattr(policy, name) and name not in allowed:
            raise OptionError(
                f"{_device_label(device)}: {name} = {getattr(policy, name)} does not go with the "
                f"policy {policy.name}",
                hint=f"it takes {' and '.join(allowed) or 'no figures'}",
            )
    terms = DeviceTerms(profile, policy=policy)
    if policy.name == "credit" and credit_capacity(terms) < 1:
        message = f"{_device_label(device)}: no credits are set"
        raise OptionError(message, hint="total_credits=N above 0, here or in the profile")
    if policy.name == "rate" and (rate_capacity(terms) < 1 or span_ns(terms) < 1):
        hint = "rate=N and span_s=S above 0; in the profile: device_rate and time_span_ns"
        raise OptionError(f"{_device_label(device)}: a rate needs units and a time", hint=hint)


def with_baseline(profile: model.DeviceProfile, baseline: model.Workload) -> model.DeviceProfile:
    """Return the profile with the baseline of a policy: a device has one baseline."""
    return msgspec.structs.replace(profile, baseline=baseline)


def check_request(request: model.ReservationRequest) -> None:
    """Raise OptionError for a value that is invalid for every device."""
    for name in ("request_id", "device", "scope", "user", "job"):
        _check_text(name, getattr(request, name))
    if request.workload_kind not in KINDS:
        hint = "quantum or hybrid"
        raise OptionError(f"workload_kind {request.workload_kind[:64]!r} is not known", hint=hint)
    for name in ("ttl_ns", "walltime_ns", "classical_ns", "overhead_ns", "bound_ns"):
        value = getattr(request, name)
        if not 0 <= value <= MAX_TTL_NS:
            raise OptionError(f"{name} = {value}", hint=f"0 to {MAX_TTL_NS} ns")
    if not 0 <= request.workers <= task_rules.MAX_WORKERS:
        raise OptionError(f"workers = {request.workers}", hint=f"0 to {task_rules.MAX_WORKERS}")
    _check_workload("workload", request.workload)
    size = sum(len(key.encode()) + len(value.encode()) for key, value in request.metadata)
    if len(request.metadata) > MAX_METADATA or size > MAX_METADATA_BYTES:
        text = f"{len(request.metadata)} entries of metadata with {size} bytes"
        raise OptionError(text, hint=f"at most {MAX_METADATA} with {MAX_METADATA_BYTES}")


def _check_workload(label: str, work: model.Workload) -> None:
    if not 1 <= work.count <= MOST:
        raise OptionError(f"{label}: count = {work.count}", hint=f"1 to {MOST}")
    for name in BASELINE_FIELDS:
        _check_figure(f"{label}: {name}", getattr(work, name))


def _check_figure(label: str, value: int) -> None:
    if not 0 <= value <= MOST:
        raise OptionError(f"{label} = {value}", hint=f"0 to {MOST}")


def _check_text(label: str, text: str) -> None:
    if len(text) > reservations.MAX_LABEL_CHARS:
        hint = f"at most {reservations.MAX_LABEL_CHARS} of them"
        raise OptionError(f"{label} has {len(text)} characters", hint=hint)
    program.check_printable(label, text)


def _device_label(device: str) -> str:
    return f"device {device[:64]!r}" if device else "the environment"
