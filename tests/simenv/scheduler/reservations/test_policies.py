"""Estimates and verdicts by figures worked out by hand."""

from __future__ import annotations

import msgspec
import pytest

from simenv.errors import OptionError
from simenv.model import (
    AdmissionPolicy,
    AdmissionReason,
    DeviceProfile,
    ReservationRequest,
    Workload,
)
from simenv.scheduler.reservations import policies
from simenv.scheduler.reservations.policies import (
    CostEstimate,
    DeviceTerms,
    ReservedCapacity,
    check_policy,
    check_profile,
    check_request,
)

SECOND = 10**9
# One shot of the baseline: 20 x 30 + 10 x 300 + 5 x 1,000 = 8,600 ns; 1,000 shots: 8.6 ms.
PROFILE = DeviceProfile()
NUMBERS = [f for f in DeviceProfile.__struct_fields__ if type(getattr(PROFILE, f)) is int]
RICH = DeviceProfile(
    one_q_transfer_ns=2,
    two_q_transfer_ns=3,
    measurement_transfer_ns=5,
    compile_ns=1_000,
    control_overhead_ns=200,
    provider_overhead_ns=30,
)


def ask(**fields: object) -> ReservationRequest:
    return ReservationRequest(**fields)  # type: ignore[arg-type]


def terms(name: str, **fields: int) -> DeviceTerms:
    return DeviceTerms(PROFILE, policy=AdmissionPolicy(name, **fields))  # type: ignore[arg-type]


def test_circuit_time_is_sum_of_gate_times_for_each_shot() -> None:
    work = Workload(gates_1q=7, gates_2q=3, measurements=2, shots=100)
    assert policies.circuits_ns(work, PROFILE) == (7 * 30 + 3 * 300 + 2 * 1_000) * 100


def test_transfer_and_overheads_count_once_per_circuit_not_per_shot() -> None:
    work = Workload(gates_1q=7, gates_2q=3, measurements=2, shots=100)
    each = (7 * 30 + 3 * 300 + 2 * 1_000) * 100 + (7 * 2 + 3 * 3 + 2 * 5) + 1_230
    assert policies.circuits_ns(work, RICH) == each
    assert policies.circuits_ns(msgspec.structs.replace(work, count=4), RICH) == 4 * each


def test_unit_is_time_of_one_baseline_circuit_whatever_its_count() -> None:
    assert policies.unit_ns(PROFILE) == 8_600_000
    changed = msgspec.structs.replace(PROFILE, baseline=Workload(9, 5, 10, 20, 10, 5, 1_000))
    assert policies.unit_ns(changed) == 8_600_000


@pytest.mark.parametrize(
    ("total_ns", "units"),
    [(0, 1), (1, 1), (8_600_000, 1), (8_600_001, 2), (17_200_000, 2), (86_000_000, 10)],
)
def test_units_are_rounded_up_and_at_least_one(total_ns: int, units: int) -> None:
    assert policies.units_of(total_ns, 8_600_000) == units


def test_exact_run_costs_one_unit() -> None:
    total_ns = policies.circuits_ns(Workload(gates_1q=100, shots=0), PROFILE)
    assert (total_ns, policies.units_of(total_ns, policies.unit_ns(PROFILE))) == (0, 1)


def test_credit_capacity_is_configured_or_derived_from_time_span() -> None:
    assert policies.credit_capacity(terms("credit", total_credits=5)) == 5
    span = msgspec.structs.replace(PROFILE, time_span_ns=SECOND)
    assert policies.credit_capacity(DeviceTerms(span)) == 116  # 10^9 / 8.6 * 10^6 = 116.28
    own = msgspec.structs.replace(PROFILE, total_credits=9)
    assert policies.credit_capacity(DeviceTerms(own)) == 9


def test_rate_capacity_is_configured_or_derived_from_time_span_rounded_up() -> None:
    assert policies.rate_capacity(terms("rate", device_rate=7, time_span_ns=SECOND)) == 7
    span = msgspec.structs.replace(PROFILE, time_span_ns=SECOND)
    assert policies.rate_capacity(DeviceTerms(span)) == 117


def test_unlimited_policy_accepts_whatever_is_reserved() -> None:
    result = policies.evaluate(
        CostEstimate(1, 10**9), ask(), terms("unlimited"), ReservedCapacity(10**9, 10**9, 10**9)
    )
    assert (result.status, result.code, result.credits, result.rate) == ("accepted", 1, 0, 0)


@pytest.mark.parametrize(
    ("units", "taken", "status", "code", "available"),
    [
        (10, 0, "accepted", AdmissionReason.ACCEPTED, 10),
        (4, 6, "accepted", AdmissionReason.ACCEPTED, 4),
        (5, 6, "delayed", AdmissionReason.INSUFFICIENT_CREDITS, 4),
        (1, 10, "delayed", AdmissionReason.INSUFFICIENT_CREDITS, 0),
        (11, 0, "rejected", AdmissionReason.TOO_LARGE, 10),
    ],
)
def test_credit_policy_accepts_delays_or_rejects_at_its_boundaries(
    units: int, taken: int, status: str, code: AdmissionReason, available: int
) -> None:
    of = terms("credit", total_credits=10)
    result = policies.evaluate(CostEstimate(1, units), ask(), of, ReservedCapacity(taken, 0, 1))
    assert (result.status, result.code, result.available) == (status, code, available)
    assert result.credits == units


@pytest.mark.parametrize(
    ("units", "taken", "status", "code", "needed"),
    [
        (600, 0, "accepted", AdmissionReason.ACCEPTED, 10),  # within 60 s: ten a second
        (601, 0, "rejected", AdmissionReason.TOO_LARGE, 11),
        (1, 9, "accepted", AdmissionReason.ACCEPTED, 1),
        (61, 9, "delayed", AdmissionReason.INSUFFICIENT_RATE, 2),
    ],
)
def test_rate_policy_accepts_delays_or_rejects_at_its_boundaries(
    units: int, taken: int, status: str, code: AdmissionReason, needed: int
) -> None:
    of = terms("rate", device_rate=10, time_span_ns=SECOND)
    answer = ask(walltime_ns=100 * SECOND, classical_ns=30 * SECOND, overhead_ns=10 * SECOND)
    assert policies.budget_ns(answer) == 60 * SECOND
    result = policies.evaluate(CostEstimate(1, units), answer, of, ReservedCapacity(0, taken, 1))
    assert (result.status, result.code, result.rate) == (status, code, needed)


@pytest.mark.parametrize("overhead_ns", [70 * SECOND, 71 * SECOND])
def test_a_walltime_without_quantum_time_is_infeasible(overhead_ns: int) -> None:
    answer = ask(walltime_ns=100 * SECOND, classical_ns=30 * SECOND, overhead_ns=overhead_ns)
    of_rate = terms("rate", device_rate=10, time_span_ns=SECOND)
    for of in (of_rate, terms("unlimited"), terms("credit", total_credits=9)):
        result = policies.evaluate(CostEstimate(1, 1), answer, of, ReservedCapacity())
        assert (result.status, result.code) == ("rejected", AdmissionReason.WALLTIME_INFEASIBLE)


def test_a_rate_without_a_walltime_is_infeasible() -> None:
    of_rate = terms("rate", device_rate=10, time_span_ns=SECOND)
    result = policies.evaluate(CostEstimate(1, 1), ask(), of_rate, ReservedCapacity())
    assert (result.status, result.code) == ("rejected", AdmissionReason.WALLTIME_INFEASIBLE)


def test_profile_limits_on_qubits_shots_and_reservations_are_enforced() -> None:
    profile = msgspec.structs.replace(PROFILE, max_qubits=5, max_shots=100, concurrent_jobs=2)
    of = DeviceTerms(profile)
    wide, long = ask(workload=Workload(qubits=6)), ask(workload=Workload(shots=101))
    assert (
        policies.evaluate(CostEstimate(1, 1), wide, of, ReservedCapacity()).code
        == AdmissionReason.TOO_LARGE
    )
    assert (
        policies.evaluate(CostEstimate(1, 1), long, of, ReservedCapacity()).code
        == AdmissionReason.TOO_LARGE
    )
    crowded = policies.evaluate(CostEstimate(1, 1), ask(), of, ReservedCapacity(reservations=2))
    assert (crowded.status, crowded.code) == ("delayed", AdmissionReason.OVER_LIMIT)


@pytest.mark.parametrize("value", [-1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("field", NUMBERS)
def test_profile_with_out_of_range_number_is_refused(field: str, value: int) -> None:
    with pytest.raises(OptionError, match=f"{field} = {value}"):
        check_profile("main", msgspec.structs.replace(PROFILE, **{field: value}))


@pytest.mark.parametrize("value", [-1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("field", Workload.__struct_fields__)
def test_workload_with_out_of_range_number_is_refused(field: str, value: int) -> None:
    wrong = msgspec.structs.replace(Workload(), **{field: value})
    with pytest.raises(OptionError, match=f"{field} = {value}"):
        check_request(ask(workload=wrong))
    with pytest.raises(OptionError, match=f"{field} = {value}"):
        check_profile("", msgspec.structs.replace(PROFILE, baseline=wrong))


@pytest.mark.parametrize("value", [-1, 2**63, 2**64 - 1])
@pytest.mark.parametrize(
    "field", ["ttl_ns", "walltime_ns", "classical_ns", "overhead_ns", "bound_ns", "workers"]
)
def test_reservation_request_with_out_of_range_number_is_refused(field: str, value: int) -> None:
    with pytest.raises(OptionError, match=f"{field} = {value}"):
        check_request(ask(**{field: value}))


def test_reservation_request_with_oversized_or_unknown_text_is_refused() -> None:
    for field in ("request_id", "device", "scope", "user", "job"):
        with pytest.raises(OptionError, match=f"{field} has 256 characters"):
            check_request(ask(**{field: "x" * 256}))
    with pytest.raises(OptionError, match="metadata"):
        check_request(ask(metadata=(("k", "v" * 20_000),)))
    with pytest.raises(OptionError, match="metadata"):
        check_request(ask(metadata=tuple((str(k), "") for k in range(65))))
    with pytest.raises(OptionError, match="workload_kind"):
        check_request(ask(workload_kind="classical"))


def test_a_baseline_that_takes_no_time_is_refused() -> None:
    idle = msgspec.structs.replace(PROFILE, baseline=Workload(shots=0))
    with pytest.raises(OptionError, match="baseline circuit would take 0 ns"):
        check_profile("", idle)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (AdmissionPolicy("lottery"), "not known"),
        (AdmissionPolicy("unlimited", total_credits=1), "does not go with"),
        (AdmissionPolicy("unlimited", time_span_ns=1), "does not go with"),
        (AdmissionPolicy("credit", total_credits=1, device_rate=1), "does not go with"),
        (AdmissionPolicy("rate", total_credits=1, device_rate=1), "does not go with"),
        (AdmissionPolicy("credit"), "no credits"),
        (AdmissionPolicy("rate", device_rate=1), "units and a time"),
        (AdmissionPolicy("rate"), "units and a time"),
        (AdmissionPolicy("credit", total_credits=-1), "total_credits = -1"),
        (AdmissionPolicy("credit", total_credits=2**63), "total_credits ="),
        (AdmissionPolicy("rate", device_rate=2**64 - 1, time_span_ns=1), "device_rate ="),
    ],
)
def test_incomplete_or_inconsistent_policy_is_refused(policy: AdmissionPolicy, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        check_policy("main", policy, PROFILE)
