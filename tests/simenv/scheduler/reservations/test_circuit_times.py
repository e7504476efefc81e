"""Times of circuits, and admission policies."""

import msgspec
import pytest
from checked_scheduler import route
from claimant import WORK, Claimant
from failing import fails

from simenv.errors import NotReservedError, OptionError
from simenv.model import (
    AdmissionPolicy,
    AdmissionReason,
    DeviceProfile,
    PoolSpec,
    ReservationRequest,
    TaskOptions,
    TaskSpec,
    Workload,
)
from simenv.model.devices import DeviceInfo, DeviceKind, GateInfo, OperationInfo, QubitInfo
from simenv.model.task import MAX_SHOTS
from simenv.model.task_rules import check_shots
from simenv.scheduler.core import Estimator
from simenv.scheduler.events.stops import cancel
from simenv.scheduler.reservations import policies
from simenv.scheduler.reservations.circuit_times import (
    DeviceFigures,
    DeviceTimes,
    ProgramSize,
    figures_of,
)
from simenv.scheduler.reservations.policies import (
    CostEstimate,
    DeviceTerms,
    ReservedCapacity,
    check_policy,
    check_profile,
    check_request,
)

POOLS = (PoolSpec("main", "any"), PoolSpec("side", "statevector"))
WIDE = msgspec.structs.replace(WORK, qubits=26, shots=1_000)
NARROW = msgspec.structs.replace(WORK, qubits=4, shots=1_000)


def without_profile(
    pools: tuple[PoolSpec, ...] = POOLS, figures: DeviceFigures | None = None
) -> Claimant:
    """`figures`: of every pool with a device."""
    host = Claimant()
    emulating = {pool.name for pool in pools if pool.device}
    host.state.reservations.times = DeviceTimes(
        pools, host.state.estimator, lambda pool: figures if pool in emulating else None
    )
    return host


def machine(**changes: object) -> DeviceInfo:
    info = DeviceInfo(
        "qpu", DeviceKind.HARDWARE, "x", "m", "1", "superconducting", 2, 1_000, (),
        all_to_all=False,
        operations=(
            OperationInfo("x", (0,), duration_ns=40.0),
            OperationInfo("x", (1,), duration_ns=60.0),
            OperationInfo("cx", (0, 1), duration_ns=500.0),
            OperationInfo("reset", (0,), duration_ns=9_000.0),
        ),
        qubits=(QubitInfo(readout_ns=2_000.0), QubitInfo()),
    )  # fmt: skip
    return msgspec.structs.replace(info, **changes)


def test_units_follow_cost_and_learned_factor() -> None:
    host = without_profile()
    narrow = host.reserve(workload=NARROW)
    wide = host.reserve(workload=WIDE)
    assert narrow.units == 1
    assert wide.units > 1_000, "26 qubits have 2**22 times the amplitudes of 4"
    assert wide.estimated_total_ns > 1_000 * narrow.estimated_total_ns
    host = without_profile()
    before = host.reserve(workload=WIDE).estimated_total_ns
    wide = route(1_000.0, num_qubits=26)
    for _ in range(50):
        host.state.estimator.observe(wide, TaskSpec(b"", 1_000, 1), 1, 3_000)
    assert host.reserve(workload=WIDE).estimated_total_ns == pytest.approx(3 * before, rel=0.01)


def test_reservation_holds_its_circuits_after_costs_were_learned() -> None:
    host = without_profile()
    host.policy("credit", total_credits=10**9)
    work = msgspec.structs.replace(WORK, qubits=20, count=20, shots=1_000)
    number = host.reserve(workload=work).reservation
    for _ in range(50):  # as cold kernels once did
        host.state.estimator.observe(route(1.0, num_qubits=20), TaskSpec(b"", 1_000, 1), 1, 20)
    one = msgspec.structs.replace(work, count=1)
    for _ in range(20):
        (task,) = host.under(number, cost=1e6, work=one)
        assert not host.ledger[number].parked
        host.assign()
        host.ran(task, 1)
    info = host.ledger[number].info(0)
    assert info.credits_consumed == info.credits_reserved, "the time of a run is not the price"


def test_units_return_where_a_task_never_ran_or_took_less() -> None:
    host = without_profile()
    host.policy("credit", total_credits=10**9)
    number = host.reserve(workload=msgspec.structs.replace(WIDE, count=2)).reservation
    (task,) = host.under(number, work=WIDE)
    host.keep(cancel(host.state, [task], host.now_ns)[1])
    host.settle()
    assert host.ledger[number].info(0).credits_consumed == 0
    host = without_profile()
    host.policy("credit", total_credits=10**9)
    for work in (WIDE, NARROW, Workload(qubits=2, gates_1q=1, measurements=2, shots=1)):
        number = host.reserve(workload=msgspec.structs.replace(work, count=7)).reservation
        more = msgspec.structs.replace(work, gates_1q=work.gates_1q + 1)
        host.under(number, 7, work.shots, work=more)
        assert not host.ledger[number].parked


def test_larger_program_takes_more_and_a_smaller_one_less() -> None:
    host = without_profile()
    host.policy("credit", total_credits=10**9)
    number = host.reserve(workload=msgspec.structs.replace(WIDE, count=4)).reservation
    item = host.ledger[number]
    host.under(number, work=WIDE)
    each, before = item.held, item.held
    host.under(number, work=msgspec.structs.replace(WIDE, qubits=25))
    assert item.held - before == pytest.approx(each / 2, rel=0.01)
    before = item.held
    host.under(number, work=msgspec.structs.replace(WIDE, qubits=27))
    assert item.held - before == pytest.approx(each * 2 / 1.1, rel=0.03)
    with pytest.raises(NotReservedError, match="units, 0 of them spent; this takes"):
        host.under(number, work=msgspec.structs.replace(WIDE, qubits=29))


def test_dynamic_program_is_priced_by_its_route() -> None:
    host = without_profile()
    host.policy("credit", total_credits=10**9)
    number = host.reserve(workload=msgspec.structs.replace(NARROW, count=10_000)).reservation
    item = host.ledger[number]
    host.under(number, work=NARROW)
    each, before = item.held, item.held
    host.under(number, work=NARROW, cost=10_000.0, is_dynamic=True)
    assert item.held - before > 100 * each
    before = item.held
    noise = TaskOptions(snapshot="ab")  # of the client's own, on a simulator without errors
    host.under(number, work=NARROW, cost=10_000.0, terms=noise)
    assert item.held - before > 100 * each


COMPILED = TaskOptions(compiled="simenv 1")
CHAIN = DeviceInfo(
    "chip", DeviceKind.EMULATED, "x", "m", "1", "superconducting", 9, 10_000, (),
    all_to_all=False, coupling=tuple((k, k + 1) for k in range(8)),
    operations=(
        OperationInfo("sx", (0,), 3e-4, 40.0),
        OperationInfo("cx", (0, 1), 1e-2, 400.0),
        OperationInfo("measure", (0,), 2e-2, 1_000.0),
    ),
)  # fmt: skip


@pytest.mark.parametrize("pace", [False, True], ids=["emulated", "paced"])
@pytest.mark.parametrize(("gates_1q", "gates_2q"), [(30, 6), (90, 6), (200, 40)])
def test_device_holds_compiled_circuits(gates_1q: int, gates_2q: int, *, pace: bool) -> None:
    """Six gates on pairs become up to 40 on a chain."""
    pools = (PoolSpec("main", "any", device="chip", pace=pace),)
    host = without_profile(pools, figures_of(CHAIN, reset_ns=250e3, overhead_ns=1e6))
    host.policy("credit", total_credits=10**6)
    number = host.reserve(workload=Workload(20, 5, 9, 12, 6, 5, 2_000)).reservation
    made = Workload(1, 7, 0, gates_1q, gates_2q, 5, 2_000)
    shot_ns = 250e3 + 1_000 + 40 * gates_1q / 5 + 400 * gates_2q / 2
    timed = route(10.0, device_shot_ns=shot_ns, device_overhead_ns=1e6, paced=pace)
    tasks = host.under(number, 20, 2_000, work=made, terms=COMPILED, routed=timed)
    item = host.ledger[number]
    assert len(tasks) == 20
    assert not item.parked
    assert item.held == pytest.approx(item.units, rel=0.05)
    larger = msgspec.structs.replace(made, qubits=9, gates_2q=100_000)
    slow = msgspec.structs.replace(timed, device_shot_ns=200 * shot_ns)
    with pytest.raises(NotReservedError):
        host.under(number, 1, 2_000, work=larger, terms=COMPILED, routed=slow)


def test_times_of_a_paced_device_follow_delays_and_clock() -> None:
    pools = (PoolSpec("main", "any", device="chip", pace=True),)
    host = without_profile(pools, figures_of(CHAIN, reset_ns=250e3))
    host.policy("credit", total_credits=10**6)
    number = host.reserve(workload=Workload(20, 5, 9, 12, 6, 5, 2_000)).reservation
    slow = route(10.0, device_shot_ns=100e6, paced=True)
    with pytest.raises(NotReservedError, match="this takes"):
        host.under(number, 1, 2_000, work=Workload(1, 5, 0, 12, 6, 5), routed=slow)
    figures = figures_of(CHAIN, reset_ns=250e3, overhead_ns=1e6)
    times = DeviceTimes(
        (PoolSpec("chip", "any", device="chip", pace=True),), Estimator(), lambda _pool: figures
    )
    expected_ns = times.workload_ns("chip", Workload(1, 5, 9, 12, 6, 5, 2_000))
    assert expected_ns == pytest.approx(1e6 + 2_000 * 255e3, rel=0.2)


def test_small_circuits_take_parts_of_a_unit() -> None:
    host = without_profile()
    host.policy("credit", baseline=msgspec.structs.replace(WIDE, qubits=20), total_credits=100)
    number = host.reserve(workload=msgspec.structs.replace(NARROW, count=1_000)).reservation
    assert host.ledger[number].info(0).credits_reserved < 50
    host.under(number, 1_000, work=NARROW)
    assert not host.ledger[number].parked
    assert host.ledger[number].info(0).credits_consumed <= 50
    digest = host.digest()
    host.restart()
    assert host.digest() == digest


def test_wider_request_than_the_device_is_rejected_with_both_widths() -> None:
    host = without_profile((PoolSpec("main", "any", device="chip"),), figures_of(CHAIN))
    decision = host.reserve(workload=msgspec.structs.replace(WORK, qubits=60))
    assert (decision.status, decision.code) == ("rejected", AdmissionReason.TOO_LARGE)
    assert decision.message == "60 qubits are asked for; main has 9"


def test_more_shots_than_the_device_takes_are_rejected_as_submit_refuses_them() -> None:
    host = without_profile((PoolSpec("main", "any", device="chip"),), figures_of(CHAIN))
    most, more = (msgspec.structs.replace(WORK, shots=count) for count in (10_000, 10_001))
    assert host.reserve(workload=most).status == "accepted"
    assert host.reserve(workload=more, device="").status == "accepted"  # another pool takes them
    decision = host.reserve(workload=more)
    assert (decision.status, decision.code) == ("rejected", AdmissionReason.TOO_LARGE)
    with pytest.raises(OptionError) as refused:
        check_shots(10_001, "main", CHAIN.max_shots)
    assert decision.message == f"{refused.value.message}: {refused.value.hint}"


def test_credit_unit_of_device_without_profile_does_not_follow_learned_costs() -> None:
    host = without_profile()
    host.policy("credit", device="", total_credits=10)
    host.policy("credit", total_credits=10)
    unit_ns = host.state.reservations.terms("main").unit_ns
    assert host.reserve(workload=msgspec.structs.replace(WORK, count=9, shots=1_000)).status
    narrow = route(1_000.0, num_qubits=5)
    for _ in range(50):
        host.state.estimator.observe(narrow, TaskSpec(b"", 1_000, 1), 1, 100)
    assert host.state.reservations.terms("main").unit_ns == unit_ns
    host.settle()  # with every invariant of reservations


def test_profile_that_is_set_replaces_the_cost_model() -> None:
    host = without_profile()
    ledger = host.state.reservations
    version = ledger.terms("main").profile_version
    assert ledger.terms("main").profile == DeviceProfile(), "the model is not shown as a profile"
    assert ledger.set_profile("main", DeviceProfile()), "also one that is equal to the default"
    assert ledger.terms("main").profile_version == version + 1
    assert host.reserve(workload=WIDE).estimated_total_ns == 8_600_000
    assert not ledger.set_profile("main", DeviceProfile())
    assert host.reserve(device="side", workload=WIDE).estimated_total_ns > 8_600_000


def test_gates_that_act_alike_on_all_qubits_have_the_width_of_their_name() -> None:
    described = figures_of(
        machine(
            gates=(GateInfo("r", 1, 2), GateInfo("rzz", 2, 1)),
            operations=(
                OperationInfo("r", (), 5e-5, 10.0),
                OperationInfo("rzz", (), 1.2e-3, 200.0),
                OperationInfo("measure", (), 9e-3, 300.0),
            ),
        )
    )
    assert (described.error_1q, described.error_2q) == (5e-5, 1.2e-3)
    assert (described.gate_1q_ns, described.gate_2q_ns) == (10.0, 200.0)


def test_hardware_time_uses_mean_durations_of_its_operations() -> None:
    pools = (PoolSpec("qpu", "hardware", provider="x"),)
    work = Workload(count=2, gates_1q=3, gates_2q=2, measurements=1, shots=100)
    described = DeviceTimes(pools, Estimator(), lambda _pool: figures_of(machine()))
    assert described.workload_ns("qpu", work) == 2 * 100 * (3 * 50 + 2 * 500 + 2_000)
    assert described.workload_ns("", work) == described.workload_ns("qpu", work)
    request = ReservationRequest(device="qpu", workload=work)
    task = route(engine="hardware", pool="qpu")
    size = ProgramSize(msgspec.structs.replace(work, count=1))
    granted = request, 630_000
    assert described.task_ns(*granted, task, TaskSpec(b"", 100, 1), size, TaskOptions()) == 315_000
    assert described.task_ns(*granted, task, TaskSpec(b"", 200, 1), size, TaskOptions()) == 630_000
    silent = DeviceTimes(pools, Estimator(), lambda _pool: None)
    assert silent.workload_ns("qpu", work) is None, "the profile holds"
    bare = figures_of(machine(operations=(), qubits=()))
    assert DeviceTimes(pools, Estimator(), lambda _pool: bare).workload_ns("qpu", work) is None


def test_largest_workload_is_rejected_with_its_size() -> None:
    chip = PoolSpec("chip", "any", device="chip", pace=True)
    pools = (PoolSpec("main", "mps"), PoolSpec("side", "any"), chip)
    for figures in (None, figures_of(CHAIN)):
        host = without_profile(pools, figures)
        value = 2**62
        for device in ("main", "side", ""):
            work = Workload(value, value, value, value, value, value, value)
            for width, shots, said in (
                (value, value, "qubits are asked for"),
                (9, value, f"shots={value}"),
                (9, MAX_SHOTS, "it would take"),
            ):
                request = msgspec.structs.replace(work, qubits=width, shots=shots)
                decision = host.reserve(device=device, workload=request)
                assert decision.status == "rejected", device
                assert said in decision.message
        assert not host.ledger


SECOND = 10**9
# One shot of the baseline: 20 x 30 + 10 x 300 + 5 x 1,000 = 8,600 ns; 1,000 shots: 8.6 ms.
PROFILE = DeviceProfile()
NUMBERS = [f for f in DeviceProfile.__struct_fields__ if type(getattr(PROFILE, f)) is int]
RICH = DeviceProfile(
    one_q_transfer_ns=2, two_q_transfer_ns=3, measurement_transfer_ns=5, compile_ns=1_000,
    control_overhead_ns=200, provider_overhead_ns=30,
)  # fmt: skip


def ask(**fields: object) -> ReservationRequest:
    return ReservationRequest(**fields)  # type: ignore[arg-type]


def terms(name: str, **fields: int) -> DeviceTerms:
    return DeviceTerms(PROFILE, policy=AdmissionPolicy(name, **fields))  # type: ignore[arg-type]


def test_time_of_circuits_counts_shots_and_overheads_and_units() -> None:
    work = Workload(gates_1q=7, gates_2q=3, measurements=2, shots=100)
    assert policies.circuits_ns(work, PROFILE) == (7 * 30 + 3 * 300 + 2 * 1_000) * 100
    work = Workload(gates_1q=7, gates_2q=3, measurements=2, shots=100)
    each = (7 * 30 + 3 * 300 + 2 * 1_000) * 100 + (7 * 2 + 3 * 3 + 2 * 5) + 1_230
    assert policies.circuits_ns(work, RICH) == each
    assert policies.circuits_ns(msgspec.structs.replace(work, count=4), RICH) == 4 * each
    assert policies.unit_ns(PROFILE) == 8_600_000
    changed = msgspec.structs.replace(PROFILE, baseline=Workload(9, 5, 10, 20, 10, 5, 1_000))
    assert policies.unit_ns(changed) == 8_600_000


@pytest.mark.parametrize(
    ("total_ns", "units"),
    [(0, 1), (1, 1), (8_600_000, 1), (8_600_001, 2), (17_200_000, 2), (86_000_000, 10)],
)
def test_units_are_rounded_up_and_at_least_one(total_ns: int, units: int) -> None:
    assert policies.units_of(total_ns, 8_600_000) == units


def test_exact_runs_cost_a_unit_and_unlimited_accepts_all() -> None:
    total_ns = policies.circuits_ns(Workload(gates_1q=100, shots=0), PROFILE)
    assert (total_ns, policies.units_of(total_ns, policies.unit_ns(PROFILE))) == (0, 1)
    result = policies.evaluate(
        CostEstimate(1, 10**9), ask(), terms("unlimited"), ReservedCapacity(10**9, 10**9, 10**9)
    )
    assert (result.status, result.code, result.credits, result.rate) == ("accepted", 1, 0, 0)


def test_capacity_of_credits_and_rates_is_configured_or_derived() -> None:
    assert policies.credit_capacity(terms("credit", total_credits=5)) == 5
    span = msgspec.structs.replace(PROFILE, time_span_ns=SECOND)
    assert policies.credit_capacity(DeviceTerms(span)) == 116  # 10^9 / 8.6 * 10^6 = 116.28
    own = msgspec.structs.replace(PROFILE, total_credits=9)
    assert policies.credit_capacity(DeviceTerms(own)) == 9
    assert policies.rate_capacity(terms("rate", device_rate=7, time_span_ns=SECOND)) == 7
    span = msgspec.structs.replace(PROFILE, time_span_ns=SECOND)
    assert policies.rate_capacity(DeviceTerms(span)) == 117


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
    fails(OptionError, f"{field} = {value}", check_request, ask(workload=wrong))
    with pytest.raises(OptionError, match=f"{field} = {value}"):
        check_profile("", msgspec.structs.replace(PROFILE, baseline=wrong))


@pytest.mark.parametrize("value", [-1, 2**63, 2**64 - 1])
@pytest.mark.parametrize(
    "field", ["ttl_ns", "walltime_ns", "classical_ns", "overhead_ns", "bound_ns", "workers"]
)
def test_reservation_request_with_out_of_range_number_is_refused(field: str, value: int) -> None:
    fails(OptionError, f"{field} = {value}", check_request, ask(**{field: value}))


def test_oversized_requests_and_baselines_without_time_are_refused() -> None:
    for field in ("request_id", "device", "scope", "user", "job"):
        fails(OptionError, f"{field} has 256 characters", check_request, ask(**{field: "x" * 256}))
    fails(OptionError, "metadata", check_request, ask(metadata=(("k", "v" * 20_000),)))
    with pytest.raises(OptionError, match="metadata"):
        check_request(ask(metadata=tuple((str(k), "") for k in range(65))))
    fails(OptionError, "workload_kind", check_request, ask(workload_kind="classical"))
    idle = msgspec.structs.replace(PROFILE, baseline=Workload(shots=0))
    fails(OptionError, "baseline circuit would take 0 ns", check_profile, "", idle)


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
    fails(OptionError, words, check_policy, "main", policy, PROFILE)
