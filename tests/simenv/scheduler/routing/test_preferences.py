"""Who gets a program that prefers pools or kinds of devices; nobody else gets a machine."""

from collections.abc import Callable

import msgspec
import pytest
from arrays import Arrays
from checked_scheduler import LIMITS, SECOND, CheckedScheduler, route
from failing import fails

from simenv.errors import ConfigError, InfeasibleError, OptionError, SimenvError
from simenv.model import PoolSpec, TaskOptions
from simenv.model.devices import DeviceInfo, DeviceKind
from simenv.scheduler.core import Route
from simenv.scheduler.routing import live_routing
from simenv.scheduler.routing.engine_support import EMPTY_SNAPSHOT, RoutingSnapshot
from simenv.scheduler.routing.live_routing import reroute_after_restart
from simenv.scheduler.views.cluster_info import closed_pools
from simulators.circuit.analysis.profiler import profile
from simulators.circuit.ir import Circuit, feed_forward

POOLS = (
    PoolSpec("main"), PoolSpec("amps", "statevector"), PoolSpec("qpu", "hardware", provider="a:b"),
    PoolSpec("qpu2", "hardware", provider="a:c"),
)  # fmt: skip
MONTREAL = DeviceInfo(
    "qpu", DeviceKind.HARDWARE, "ibm", "fake_montreal", "1", "", 27, 1000, (), False
)
KNOWN = RoutingSnapshot((MONTREAL,))


def ghz(width: int) -> Circuit:
    arrays = Arrays(width, width).add("h", [0])
    for q in range(width - 1):
        arrays.add("cx", [q, q + 1])
    for q in range(width):
        arrays.add("measure", [q], [q])
    return arrays.circuit()


def routed(
    *prefer: str, circuit: Circuit | None = None, seen: RoutingSnapshot = KNOWN, **terms: object
) -> Route:
    task_options = TaskOptions(prefer=prefer, **terms)  # type: ignore[arg-type]
    result = profile(circuit or ghz(3))
    by_route = live_routing.route_with_preference(result, task_options, POOLS, LIMITS, seen)
    first = live_routing.candidates_with_preference(result, task_options, POOLS, LIMITS, seen)[0]
    assert first.route == by_route, "explain says something else"
    assert first.text == by_route.reason
    return by_route


def shut(*pools: str, why: str = "quarantined") -> RoutingSnapshot:
    return RoutingSnapshot((MONTREAL,), tuple((pool, why) for pool in pools))


@pytest.mark.parametrize(
    ("prefer", "seen", "pool", "reason"),
    [
        (("hardware",), KNOWN, "qpu", "preferred hardware: pool qpu (fake_montreal)"),
        (("qpu2", "qpu"), KNOWN, "qpu2", "preferred qpu2: pool qpu2"),
        (
            ("hardware",), shut("qpu", why="paused"), "qpu2",
            "hardware: pool qpu is paused; preferred hardware: pool qpu2",
        ),
        (
            ("hardware", "simulator"), shut("qpu", "qpu2", "main"), "amps",
            "hardware: pool qpu is quarantined; hardware: pool qpu2 is quarantined; "
            "simulator: pool main is quarantined; preferred simulator: pool amps; auto: 3 qubits, "
            "all amplitudes, exact; dynamic circuits by branching and merging",
        ),
    ],
)  # fmt: skip
def test_preference(prefer: tuple[str, ...], seen: RoutingSnapshot, pool: str, reason: str) -> None:
    result = routed(*prefer, seen=seen)
    assert (result.pool, result.reason) == (pool, reason)
    assert result.engine == ("hardware" if pool.startswith("qpu") else "statevector")


def test_task_that_no_preferred_pool_can_take_goes_to_simulator() -> None:
    result = routed("hardware", seen=shut("qpu", "qpu2"))
    assert (result.engine, result.pool in ("main", "amps")) == ("statevector", True)
    assert result.reason.startswith("hardware: pool qpu is quarantined; hardware: pool qpu2 is")
    assert f"; took pool {result.pool}: auto: 3 qubits" in result.reason
    wide = routed("qpu", circuit=ghz(28))
    assert wide.engine == "stabilizer"
    assert wide.reason.startswith("qpu: pool qpu: this program has 28 qubits; pool qpu (fake_mon")
    assert routed("qpu", outputs=("probabilities",)).reason.startswith(
        "qpu: pool qpu: has no output 'probabilities'; took pool"
    )


def test_hardware_is_used_only_when_asked_for() -> None:
    for circuit in (ghz(3), ghz(200), feed_forward()):
        assert routed(circuit=circuit).engine != "hardware"
    fails(OptionError, "cannot be selected directly", routed, engine="hardware")
    only = (POOLS[2],)
    with pytest.raises(InfeasibleError) as caught:
        live_routing.route_with_preference(profile(ghz(3)), TaskOptions(), only, LIMITS, KNOWN)
    assert "hardware is selected by its pool" in caught.value.hint


def test_named_hardware_pool_refuses_what_it_cannot_run() -> None:
    result = routed(pool="qpu")
    assert (result.engine, result.pool, result.max_slots) == ("hardware", "qpu", 1)
    assert result.reason == "asked for pool qpu (fake_montreal)"
    assert routed(pool="qpu", seen=EMPTY_SNAPSHOT).reason == "asked for pool qpu"
    refused: list[tuple[type[SimenvError], str, dict[str, object]]] = [
        (InfeasibleError, "28 qubits; pool qpu .fake_montreal. has 27", {"circuit": ghz(28)}),
        (InfeasibleError, "before a program's end", {"circuit": feed_forward()}),
        (
            InfeasibleError,
            "pool 'qpu' does not run engine 'statevector'",
            {"engine": "statevector"},
        ),
        (InfeasibleError, "no output 'statevector'", {"outputs": ("statevector",)}),
        (OptionError, "no option 'bond'", {"options": (("bond", 3),)}),
    ]
    for kind, actual, value in refused:
        error = fails(kind, actual, routed, pool="qpu", **value)
        assert not error.hint.endswith("; ")
    assert routed(pool="qpu", circuit=ghz(28), seen=EMPTY_SNAPSHOT).pool == "qpu"
    dynamic = msgspec.structs.replace(MONTREAL, dynamic=True)
    assert (
        routed(pool="qpu", circuit=feed_forward(), seen=RoutingSnapshot((dynamic,))).pool == "qpu"
    )


@pytest.mark.parametrize(
    ("prefer", "message", "hint"),
    [
        (("hardwre", "simulator"), "'hardwre' is neither a pool nor a kind", "mean 'hardware'?"),
        (("simulator", "amp"), "'amp' is neither a pool nor a kind", "did you mean 'amps'?"),
        (("nobody",), "'nobody' is neither", "pools here: main, amps, qpu, qpu2; kinds: hardware"),
        (("emulater",), "'emulater' is neither a pool nor a kind", "did you mean 'emulat"),
    ],
)
def test_unknown_preference_is_refused(prefer: tuple[str, ...], message: str, hint: str) -> None:
    assert hint in fails(OptionError, message, routed, *prefer).hint


def test_preferred_kind_without_pool_is_skipped() -> None:
    result = live_routing.route_with_preference(
        profile(ghz(3)), TaskOptions(prefer=("hardware", "simulator")), POOLS[:2], LIMITS,
        EMPTY_SNAPSHOT,
    )  # fmt: skip
    assert result.pool == "main"
    assert result.reason.startswith("hardware: no such pool; preferred simulator: pool main")


@pytest.mark.parametrize(
    "decide", [live_routing.route_with_preference, live_routing.candidates_with_preference]
)
def test_noise_is_refused_where_no_emulator_takes_circuit(decide: Callable[..., object]) -> None:
    closed = RoutingSnapshot((), (("lattice", "quarantined"),))
    pools = (PoolSpec("main"), PoolSpec("lattice", device="fez"))

    def asked(noise: tuple[tuple[str, float], ...]) -> TaskOptions:
        return TaskOptions(prefer=("emulator",), device="fez", noise=noise, snapshot="00")

    with pytest.raises(InfeasibleError, match=r"noise is asked for.*pool lattice is quarantined"):
        decide(profile(ghz(3)), asked((("gate", 0.5),)), pools, LIMITS, closed)
    for noise in ((), (("all", 0.0),)):
        assert decide(profile(ghz(3)), asked(noise), pools, LIMITS, closed)


def test_preference_together_with_pool_is_refused() -> None:
    fails(OptionError, "prefer cannot be combined with pool", routed, "hardware", pool="qpu")


def test_hardware_task_is_not_adopted_by_another_pool() -> None:
    old = route(engine="hardware", pool="qpu")
    assert reroute_after_restart(old, POOLS, LIMITS) == old
    with pytest.raises(ConfigError, match="'hardware' in pool 'qpu', which is not there now"):
        reroute_after_restart(old, (POOLS[0], POOLS[3]), LIMITS)


def test_quarantined_pool_is_listed_as_closed() -> None:
    machine = CheckedScheduler(specs=POOLS[:3])
    assert closed_pools(machine.state) == ()
    for _ in range(7):
        machine.tick(100)
        machine.lose("qpu-0", "exit 2: no token")
    assert closed_pools(machine.state) == (("qpu", "quarantined"),)
    assert machine.now_ns > SECOND
