"""What work costs in baseline units, and what of a device may be promised. Pure functions.

One unit is the time of the device's baseline circuit; one credit is one unit. Invariant: whole
numbers throughout (nanoseconds, units), so equal values give equal decisions, also after a replay.
Formulas: QPM hosts' estimator, per shot n1 t1 + n2 t2 + nm tm; see `circuits_ns`.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from simenv.model import AdmissionPolicy, Code, DeviceProfile, ReservationAsk, Workload

ACCEPTED, DELAYED, REJECTED = "accepted", "delayed", "rejected"


class DeviceTerms(msgspec.Struct, frozen=True):
    """What reservations of one device are decided by. Versions grow with each change."""

    profile: DeviceProfile = DeviceProfile()
    profile_version: int = 1
    policy: AdmissionPolicy = AdmissionPolicy()
    policy_version: int = 1
    # Time of the baseline circuit in ns where it does not follow from the profile, because nobody
    # has set one; see `circuit_times`. 0: it follows from the profile.
    modelled_unit_ns: int = 0

    @property
    def unit_ns(self) -> int:
        """Time of the baseline circuit, in ns."""
        return self.modelled_unit_ns or unit_ns(self.profile)


class Scale(msgspec.Struct, frozen=True):
    """What a device counts in; that of all devices together need not be that of each."""

    one_ns: int  # a unit
    span_ns: int  # that a rate is meant for


class Estimate(msgspec.Struct, frozen=True):
    """Expected cost of some work."""

    total_ns: int
    units: int


class Taken(msgspec.Struct, frozen=True):
    """What live reservations have of a device."""

    credits: int = 0
    rate: int = 0
    reservations: int = 0


class Verdict(msgspec.Struct, frozen=True):
    """What one device says to one ask; `credits` and `rate`: what it would take, 0: not limited."""

    status: str = ACCEPTED
    code: int = Code.ACCEPTED
    words: str = ""
    credits: int = 0
    rate: int = 0
    available: int = 0
    missing: int = 0  # of what is delayed
    wait_ns: int = 0  # until it may be asked again, where that is known


def circuits_ns(work: Workload, profile: DeviceProfile) -> int:
    """Expected time of `work.count` equal circuits, in ns: gates and measurements at each shot;
    their transfer, compilation and overheads once a circuit."""
    ones, twos, measured = work.gates_1q, work.gates_2q, work.measurements
    shot_ns = (
        ones * profile.one_q_gate_ns
        + twos * profile.two_q_gate_ns
        + measured * profile.measurement_ns
    )
    transfer_ns = (
        ones * profile.one_q_transfer_ns
        + twos * profile.two_q_transfer_ns
        + measured * profile.measurement_transfer_ns
    )
    overhead_ns = profile.compile_ns + profile.control_overhead_ns + profile.provider_overhead_ns
    return work.count * (shot_ns * work.shots + transfer_ns + overhead_ns)


def unit_ns(profile: DeviceProfile) -> int:
    """Time of the baseline circuit, in ns."""
    return circuits_ns(msgspec.structs.replace(profile.baseline, count=1), profile)


def units_of(total_ns: int, one_ns: int) -> int:
    """A time as baseline units: at least one, begun ones count."""
    return max(1, -(-total_ns // one_ns))


def credit_capacity(terms: DeviceTerms) -> int:
    """Credits there are in all; told, or what fits into the time span."""
    profile = terms.profile
    told = terms.policy.total_credits or profile.total_credits
    return told or span_ns(terms) // terms.unit_ns


def rate_capacity(terms: DeviceTerms) -> int:
    """Units in each time span; told, or what fits into it."""
    profile = terms.profile
    told = terms.policy.device_rate or profile.device_rate
    return told or -(-span_ns(terms) // terms.unit_ns)


def span_ns(terms: DeviceTerms) -> int:
    """The time that a rate is meant for."""
    return terms.policy.time_span_ns or terms.profile.time_span_ns


def scale(terms: DeviceTerms) -> Scale:
    """Of a device."""
    return Scale(terms.unit_ns, span_ns(terms))


def budget_ns(ask: ReservationAsk) -> int:
    """Time for quantum work within the walltime that was asked for; 0 where none was."""
    return ask.walltime_ns - ask.classical_ns - ask.overhead_ns if ask.walltime_ns else 0


def rate_of(units: int, time_span_ns: int, budget: int) -> int:
    """Units in each time span, so that all are done within the budget."""
    return -(-units * time_span_ns // budget)


# --- the policies ---------------------------------------------------------------------------------


def unlimited(_cost: Estimate, _ask: ReservationAsk, _of: DeviceTerms, _taken: Taken) -> Verdict:
    """Nothing runs out."""
    return Verdict()


def credit(cost: Estimate, _ask: ReservationAsk, terms: DeviceTerms, taken: Taken) -> Verdict:
    """As many credits as units, of so many in all."""
    total = credit_capacity(terms)
    return _measured(cost.units, total, taken.credits, "credits", Code.INSUFFICIENT_CREDITS)


def rate(cost: Estimate, ask: ReservationAsk, terms: DeviceTerms, taken: Taken) -> Verdict:
    """Units in each time span, so that they are done within the walltime."""
    budget = budget_ns(ask)
    total = rate_capacity(terms)
    if budget <= 0:
        words = (
            f"a walltime of {ask.walltime_ns} ns leaves no time for quantum work; a device with "
            "a rate needs walltime_ns above classical_ns + overhead_ns"
        )
        available = max(0, total - taken.rate)
        return Verdict(REJECTED, Code.WALLTIME_INFEASIBLE, words, available=available)
    needed = rate_of(cost.units, span_ns(terms), budget)
    return _measured(needed, total, taken.rate, "units a time span", Code.INSUFFICIENT_RATE)


def _measured(needed: int, total: int, taken: int, what: str, short: Code) -> Verdict:
    """So much is needed of something that runs out."""
    free = max(0, total - taken)
    takes = (needed, 0) if short is Code.INSUFFICIENT_CREDITS else (0, needed)
    if needed > total:
        words = f"{needed} {what} are needed; the device has {total} in all"
        return Verdict(REJECTED, Code.TOO_LARGE, words, *takes, free)
    if needed > free:
        words = f"{needed} {what} are needed, {free} of {total} are free"
        return Verdict(DELAYED, short, words, *takes, free, needed - free)
    return Verdict(ACCEPTED, Code.ACCEPTED, "", *takes, free)


Policy = Callable[[Estimate, ReservationAsk, DeviceTerms, Taken], Verdict]
POLICIES: dict[str, Policy] = {"unlimited": unlimited, "credit": credit, "rate": rate}


def judge(cost: Estimate, ask: ReservationAsk, terms: DeviceTerms, taken: Taken) -> Verdict:
    """The word of one device on one ask, whose numbers are sound."""
    profile, work = terms.profile, ask.workload
    for what, asked, most in (
        ("qubits", work.qubits, profile.max_qubits),
        ("shots", work.shots, profile.max_shots),
    ):
        if most and asked > most:
            words = f"{asked} {what} are asked for; the device has at most {most}"
            return Verdict(REJECTED, Code.TOO_LARGE, words)
    if ask.walltime_ns and budget_ns(ask) <= 0:
        words = f"classical_ns + overhead_ns take all of the walltime of {ask.walltime_ns} ns"
        return Verdict(REJECTED, Code.WALLTIME_INFEASIBLE, words)
    if profile.concurrent_jobs and taken.reservations >= profile.concurrent_jobs:
        words = f"the device has {taken.reservations} reservations, as many as it takes at once"
        return Verdict(DELAYED, Code.OVER_LIMIT, words, missing=1)
    return POLICIES[terms.policy.name](cost, ask, terms, taken)
