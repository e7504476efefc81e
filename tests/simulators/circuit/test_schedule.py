"""Start times and idle times of scheduled circuits."""

import numpy as np
import pytest
from arrays import Arrays

from simulators.circuit import tokens as tk
from simulators.circuit.ir import Circuit
from simulators.circuit.schedule import Method, Schedule, schedule

NS = {"x": 10.0, "cx": 100.0, "measure": 1000.0, "reset": 500.0, "delay": 70.0}


def scheduled(
    circuit: Circuit, method: Method = "alap", *, final: tuple[int, ...] = (), latency: float = 0.0
) -> Schedule:
    names = [circuit.table.names[row] for row in circuit.ops.tolist()]
    mask = np.zeros(len(names), np.bool_)
    mask[list(final)] = True
    durations = np.array([NS.get(name, 0.0) for name in names])
    return schedule(circuit, durations, method, feed_forward_ns=latency, final=mask)


def idle(found: Schedule) -> list[tuple[int, int, float]]:
    return list(
        zip(
            found.idle_after.tolist(),
            found.idle_qubit.tolist(),
            found.idle_ns.tolist(),
            strict=True,
        )
    )


def test_alap_delays_and_asap_hurries() -> None:
    circuit = Arrays(2, 0).add("x", [0]).add("x", [1]).add("x", [1]).add("cx", [0, 1]).circuit()
    late, early = scheduled(circuit), scheduled(circuit, "asap")
    assert late.start_ns.tolist() == [10.0, 0.0, 10.0, 20.0]
    assert early.start_ns.tolist() == [0.0, 0.0, 10.0, 20.0]
    assert late.duration_ns == early.duration_ns == 120.0
    assert idle(late) == []
    assert idle(early) == [(2, 0, 10.0)]


def test_time_before_a_qubits_first_operation_is_not_idle() -> None:
    circuit = Arrays(2, 0).add("x", [0]).add("barrier", [0, 1]).add("cx", [0, 1]).circuit()
    for method in ("alap", "asap"):
        assert idle(scheduled(circuit, method)) == []


def test_a_barrier_holds_back_its_qubits() -> None:
    circuit = Arrays(2, 0).add("x", [1]).add("cx", [1, 0]).add("barrier", [0, 1])
    circuit.add("x", [0]).add("cx", [1, 0])
    result = scheduled(circuit.circuit())
    assert result.start_ns.tolist() == [0.0, 10.0, 110.0, 110.0, 120.0]
    assert idle(result) == [(3, 1, 10.0)]


def test_qubits_idle_until_the_end_unless_they_were_measured() -> None:
    circuit = Arrays(3, 1).add("x", [0]).add("x", [1]).add("barrier", [0, 1, 2])
    circuit.add("measure", [0], [0])
    result = scheduled(circuit.circuit(), final=(3,))
    assert idle(result) == [(3, 1, 1000.0)]
    assert result.duration_ns == 1010.0


def test_a_delay_takes_its_time_and_is_no_idle_time_itself() -> None:
    circuit = Arrays(2, 0).add("x", [0]).add("x", [1]).add("delay", [0], params=[70.0])
    circuit.add("cx", [0, 1])
    result = scheduled(circuit.circuit(), "asap")
    assert result.duration_ns == 180.0
    assert idle(result) == [(2, 1, 70.0)]


def test_a_block_starts_after_the_latency_of_the_bits_it_reads() -> None:
    circuit = Arrays(2, 1).add("x", [1]).add("measure", [0], [0]).begin((tk.CLBIT, 0, 0))
    circuit.add("x", [1]).add("end").add("x", [1])
    result = scheduled(circuit.circuit(), "asap", latency=300.0)
    assert result.start_ns.tolist() == [0.0, 0.0, 1300.0, 0.0, 0.0, 1310.0]
    assert (1, 1, 1290.0) in idle(result)
    assert result.duration_ns == 1320.0


def test_other_qubits_wait_for_the_longest_branch() -> None:
    circuit = Arrays(2, 1).add("x", [0]).add("x", [1]).add("measure", [0], [0])
    circuit.begin((tk.CLBIT, 0, 0)).add("x", [1]).add("else").add("x", [1]).add("x", [1])
    circuit.add("end").add("cx", [0, 1])
    result = scheduled(circuit.circuit())
    assert result.start_ns[-1] == 1030.0
    assert (8, 0, 20.0) in idle(result)


def test_qubits_idle_inside_a_branch() -> None:
    circuit = Arrays(2, 1).add("measure", [0], [0]).begin((tk.CLBIT, 0, 0))
    circuit.add("x", [0]).add("x", [1]).add("x", [1]).add("cx", [0, 1]).add("end")
    result = scheduled(circuit.circuit())
    assert (1, 0, 10.0) in idle(result), "in a branch, time counts from its start"
    assert result.start_ns[5] == 20.0


@pytest.mark.parametrize("method", ["alap", "asap"])
def test_passes_of_a_for_loop_follow_one_another(method: Method) -> None:
    circuit = Arrays(2, 0).add("x", [0]).add("x", [1]).repeat(5).add("x", [0]).add("end")
    circuit.add("cx", [0, 1])
    result = scheduled(circuit.circuit(), method)
    assert result.duration_ns == 10.0 + 50.0 + 100.0
    assert result.start_ns[-1] == 60.0
