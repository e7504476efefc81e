"""Are the numbers of an ask, a profile or a policy such that anything can be decided by them?

Invariant: what passes here never makes a decision fail: no division by nothing, and nothing that a
message or the journal could not carry.
"""

from __future__ import annotations

import msgspec

from simenv.errors import OptionError
from simenv.model import AdmissionPolicy, DeviceProfile, ReservationAsk, Workload
from simenv.model.bounds import check_printable
from simenv.scheduler import policy as policies
from simenv.scheduler.policy import DeviceTerms

MOST = 2**62  # of any figure, given or derived
MAX_TTL_NS = 10 * 365 * 86_400 * 10**9
MAX_NAME_CHARS = 255
MAX_METADATA = 64
MAX_METADATA_BYTES = 2_048
MAX_KEPT_WORKERS = 10_000
KINDS = ("quantum", "hybrid")
BASELINE_FIELDS = ("qubits", "depth", "gates_1q", "gates_2q", "measurements", "shots")


def check_profile(device: str, profile: DeviceProfile) -> None:
    """OptionError names the field, its value and its range."""
    for name in profile.__struct_fields__:
        value = getattr(profile, name)
        if isinstance(value, int):
            _whole(f"{_of(device)}: {name}", value)
    _short(f"{_of(device)}: external_device_id", profile.external_device_id)
    if profile.default_ttl_ns < 1 or profile.default_ttl_ns > MAX_TTL_NS:
        raise OptionError(
            f"{_of(device)}: default_ttl_ns = {profile.default_ttl_ns}",
            hint=f"1 to {MAX_TTL_NS} ns",
        )
    _check_workload(f"{_of(device)}: baseline", profile.baseline)
    one_ns = policies.unit_ns(profile)
    if not 0 < one_ns <= MOST:
        raise OptionError(
            f"{_of(device)}: its baseline circuit would take {one_ns} ns",
            hint=f"times and counts that give 1 to {MOST} ns",
        )


def check_policy(device: str, policy: AdmissionPolicy, profile: DeviceProfile) -> None:
    """OptionError if it is unknown, or leaves open how much there is."""
    if policy.name not in policies.POLICIES:
        raise OptionError(
            f"{_of(device)}: admission policy {policy.name[:64]!r} is not known",
            hint=f"one of: {', '.join(policies.POLICIES)}",
        )
    told = ("total_credits", "device_rate", "time_span_ns")
    for name in told:
        _whole(f"{_of(device)}: {name}", getattr(policy, name))
    goes = {"credit": told[:1], "rate": told[1:], "unlimited": ()}[policy.name]
    for name in told:
        if getattr(policy, name) and name not in goes:
            raise OptionError(
                f"{_of(device)}: {name} = {getattr(policy, name)} does not go with the policy "
                f"{policy.name}",
                hint=f"it takes {' and '.join(goes) or 'no figures'}",
            )
    terms = DeviceTerms(profile, policy=policy)
    if policy.name == "credit" and policies.credit_capacity(terms) < 1:
        words = f"{_of(device)}: there would be no credits"
        raise OptionError(words, hint="total_credits above 0, here or in the profile")
    if policy.name == "rate" and (policies.rate_capacity(terms) < 1 or policies.span_ns(terms) < 1):
        raise OptionError(
            f"{_of(device)}: a rate needs units and a time",
            hint="device_rate and time_span_ns above 0, here or in the profile",
        )


def with_baseline(profile: DeviceProfile, baseline: Workload) -> DeviceProfile:
    """A device has one baseline: the profile and the policy tell of the same."""
    return msgspec.structs.replace(profile, baseline=baseline)


def check_ask(ask: ReservationAsk) -> None:
    """OptionError: what is wrong with what is asked for, whichever device it is."""
    for name in ("request_id", "device", "scope", "user", "job"):
        _short(name, getattr(ask, name))
    if ask.workload_kind not in KINDS:
        raise OptionError(
            f"workload_kind {ask.workload_kind[:64]!r} is not known", hint="quantum or hybrid"
        )
    for name in ("ttl_ns", "walltime_ns", "classical_ns", "overhead_ns", "bound_ns"):
        value = getattr(ask, name)
        if not 0 <= value <= MAX_TTL_NS:
            raise OptionError(f"{name} = {value}", hint=f"0 to {MAX_TTL_NS} ns")
    if not 0 <= ask.workers <= MAX_KEPT_WORKERS:
        raise OptionError(f"workers = {ask.workers}", hint=f"0 to {MAX_KEPT_WORKERS}")
    _check_workload("workload", ask.workload)
    size = sum(len(key.encode()) + len(value.encode()) for key, value in ask.metadata)
    if len(ask.metadata) > MAX_METADATA or size > MAX_METADATA_BYTES:
        raise OptionError(
            f"{len(ask.metadata)} entries of metadata with {size} bytes",
            hint=f"at most {MAX_METADATA} with {MAX_METADATA_BYTES}",
        )


def _check_workload(what: str, work: Workload) -> None:
    if not 1 <= work.count <= MOST:
        raise OptionError(f"{what}: count = {work.count}", hint=f"1 to {MOST}")
    for name in BASELINE_FIELDS:
        _whole(f"{what}: {name}", getattr(work, name))


def _whole(what: str, value: int) -> None:
    if not 0 <= value <= MOST:
        raise OptionError(f"{what} = {value}", hint=f"0 to {MOST}")


def _short(what: str, text: str) -> None:
    if len(text) > MAX_NAME_CHARS:
        raise OptionError(
            f"{what} has {len(text)} characters", hint=f"at most {MAX_NAME_CHARS} of them"
        )
    check_printable(what, text)


def _of(device: str) -> str:
    return f"device {device[:64]!r}" if device else "the environment"
