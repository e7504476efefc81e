"""What circuits give over ranks, and in one process: the same; see `among_ranks`."""

import copy
from typing import Any

import msgspec
import numpy as np
from among_ranks import given
from arrays import Arrays, measured
from both_ways import DOUBLE, SINGLE, agree, alone, crowded, equal, histories, run, width
from reference import apply

from simulators.catalog.costs import SHARE_QUBITS
from simulators.circuit import ir
from simulators.circuit.gates import ANY, GATES, unitary
from simulators.circuit.ir import Circuit, table_of
from simulators.engine import PauliSum, Request, RunOptions
from simulators.errors import TooManySteps
from simulators.simulate import counts_of


def case_each_gate_matches_its_matrix(comm: Any) -> None:
    """Each gate of the library, also on the qubits that stand in the rank's number."""
    n = width(comm)
    rng = np.random.default_rng(1)
    arrays = Arrays(n, 0)
    for q in range(n):
        arrays.add("ry", [q], (), [0.3 + q])
    request = Request(0, 1, ("statevector",))
    before = alone(arrays.circuit(), request).statevector
    assert before is not None
    for gate in GATES.values():
        count = 4 if gate.qubits == ANY else gate.qubits
        angles = [0.7, -0.4, 1.9, 0.2][: gate.params]
        first = rng.permutation(range(n - 3, n)).tolist()
        wires = (first + rng.permutation(n - 3).tolist())[:count]
        circuit = copy.deepcopy(arrays).add(gate.name, wires, (), angles).circuit()
        result = run(circuit, request)
        near = True
        if result is not None:
            assert result.statevector is not None
            matrix = unitary(gate.name, tuple(angles), count)
            expected = apply(before[0], matrix, wires)
            near = bool(np.abs(result.statevector[0] - expected).max() < 1e-10)
        assert agree(comm, near), (gate.name, wires)


def case_statevector_is_bit_identical_to_single_rank(comm: Any) -> None:
    n = width(comm)
    for seed, options in ((1, DOUBLE), (2, SINGLE), (3, RunOptions(threads=2))):
        circuit = crowded(n + 1, 250, seed).circuit()
        equal(comm, circuit, Request(0, 1, ("statevector",)), options)


def case_amplitudes_equal_single_rank(comm: Any) -> None:
    n = width(comm) + 1
    bits = np.random.default_rng(4).integers(0, 2, (50, n)).astype(np.uint8)
    for seed, options in ((1, DOUBLE), (2, SINGLE)):
        circuit = crowded(n, 250, seed).circuit()
        request = Request(0, 1, ("amplitudes",), amplitudes=bits)
        shared = run(circuit, request, options)
        single = alone(circuit, request, options)
        same = shared is None or np.array_equal(shared.amplitudes, single.amplitudes)
        assert agree(comm, same)
        assert (shared is None) == (comm.Get_rank() > 0)


def case_unitary_matrices_equal_single_rank(comm: Any) -> None:
    n = width(comm)
    rng = np.random.default_rng(5)
    for count in (1, 2, 3, 6, 8):
        arrays = crowded(n, 20, count)
        square = rng.normal(size=(2**count, 2**count)) + 1j * rng.normal(size=(2**count, 2**count))
        matrix = np.linalg.qr(square)[0]
        wires = [n - 1, *rng.permutation(n - 1).tolist()][:count]
        arrays.unitary(matrix, rng.permutation(wires).tolist())
        for options in (DOUBLE, SINGLE):
            equal(comm, arrays.circuit(), Request(0, 1, ("statevector",)), options)


def case_counts_of_each_seed_equal_single_rank(comm: Any) -> None:
    n = width(comm)
    for seed in (0, 7, 2**64 - 1):
        for options in (DOUBLE, SINGLE):
            circuit = measured(crowded(n, 60, 11, n))
            equal(comm, circuit, Request(3000, seed, binding=seed % 5), options)


def case_memory_equals_single_rank(comm: Any) -> None:
    """Of one state, of branches in groups of shots, and of components."""
    n, both = width(comm), ("counts", "memory")
    for circuit, options in (
        (measured(crowded(n, 60, 11, n)), SINGLE),
        (histories(n, 2), RunOptions(max_branches=3)),
        (measured_apart(n), DOUBLE),
    ):
        result = equal(comm, circuit, Request(300, 7, both, binding=2), options)
        assert agree(
            comm, result is None or len(result.memory) == 300 * -(-circuit.num_clbits // 8)
        )


def case_outcomes_have_bits_at_their_clbits(comm: Any) -> None:
    n = width(comm)
    arrays = crowded(n, 60, 12, 70)
    for q, c in ((n - 1, 0), (0, 69), (n - 2, 3), (5, 64), (n - 1, 5)):
        arrays.add("measure", [q], [c])
    equal(comm, arrays.circuit(), Request(500, 3))


def case_results_of_bindings_equal_single_rank(comm: Any) -> None:
    n = width(comm)
    arrays = Arrays(n, n)
    for q in range(n):
        arrays.add("ry", [q], (), [0.0])
        arrays.free(q % 3)
        arrays.add("cx", [q, (q + 1) % n])
    rows = np.array([[0.1, 0.2, 0.3], [1.0, 2.0, 3.0], [-1.0, 0.5, 0.0]])
    observable = PauliSum(("Z" * n, "X" + "I" * (n - 1)), np.array([0.5, 2.0]))
    circuit = measured(arrays)
    equal(comm, circuit, Request(200, 9, ("counts",), (), rows, 40))
    bare = msgspec.structs.replace(
        circuit, ops_data=circuit.ops_data[: -2 * n], qubits_data=circuit.qubits_data[: -2 * n],
        clbits_data=b"",
    )  # fmt: skip
    equal(comm, bare, Request(0, 9, ("expectation",), (observable,), rows))


def case_expectation_values_equal_single_rank(comm: Any) -> None:
    n = width(comm)
    rng = np.random.default_rng(4)
    labels = ["X" * n, "Y" * n, "Z" * n, "I" * n, "X" + "I" * (n - 1), "YZ" + "I" * (n - 3) + "X"]
    labels += ["".join(rng.choice(list("IXYZ"), n)) for _ in range(8)]
    observables = (PauliSum(tuple(labels[:9]), rng.normal(size=9)),)
    observables += (PauliSum(tuple(labels[9:]), rng.normal(size=5)),)
    circuit = crowded(n, 60, 13).circuit()
    for shots in (0, 400):
        equal(comm, circuit, Request(shots, 6, ("expectation",), observables))
    equal(comm, circuit, Request(0, 6, ("expectation",), observables), SINGLE)


def apart(widths: list[int]) -> Arrays:
    """Circuits of so many qubits in turn, which nothing connects; and qubits that nobody sees."""
    rest, outcome = [crowded(width, 12, 3 + width, width) for width in widths], Arrays(0, 0)
    qubits: list[list[int]] = [[] for _ in widths]
    for place in range(max(widths)):
        for own, size in zip(qubits, widths, strict=True):
            if place < size:
                own.append(outcome.num_qubits)
                outcome.num_qubits += 1
    for arrays, own in zip(rest, qubits, strict=True):
        circuit = arrays.circuit()
        at = param = 0
        for op in circuit.ops.tolist():
            _, count, _, angles = circuit.table.rows[op].tolist()
            wires = [own[q] for q in circuit.qubits[at : at + count].tolist()]
            outcome.add(
                circuit.table.names[op], wires, (), circuit.params[param:][:angles].tolist()
            )
            at, param = at + count, param + angles
    outcome.num_qubits += 9
    outcome.add("h", [outcome.num_qubits - 1]).add("cx", [0, outcome.num_qubits - 1])
    return outcome


def apart_with_clbits(n: int) -> tuple[Arrays, list[int]]:
    """Components of several widths; the qubits to be measured, one for each clbit."""
    arrays = apart([n + 1, n, SHARE_QUBITS - 1, 5])
    measured_ones = [*range(12), arrays.num_qubits - 12, arrays.num_qubits - 10]
    arrays.num_clbits, arrays.registers = len(measured_ones), (("c", len(measured_ones)),)
    return arrays, measured_ones


def measured_apart(n: int) -> Circuit:
    arrays, measured_ones = apart_with_clbits(n)
    for clbit, qubit in enumerate(measured_ones):
        arrays.add("measure", [qubit], [clbit])
    return arrays.circuit()


def case_results_of_components_equal_single_rank(comm: Any) -> None:
    """All ranks share the first two, the others each has for itself."""
    n = width(comm)
    arrays, measured_ones = apart_with_clbits(n)
    label = "".join("Z" if q % 5 == 0 else "I" for q in reversed(range(arrays.num_qubits)))
    sums = (PauliSum((label, "I" * arrays.num_qubits), np.ones(2)),)
    for clbit, qubit in enumerate(measured_ones):
        arrays.add("measure", [qubit], [clbit])
    circuit = arrays.circuit()
    outputs = ("counts", "expectation")
    for options in (DOUBLE, SINGLE):
        result = equal(comm, circuit, Request(300, 4, outputs, sums), options)
        assert agree(comm, result is None or f"{comm.size} ranks" in result.remark)
    near(comm, circuit)
    moving = copy.deepcopy(arrays)
    for qubit in (0, 2, 3):  # of the first, the third and the last
        moving.begin((ir.CLBIT, measured_ones.index(qubit), 0)).add("h", [qubit]).add("end")
        moving.add("measure", [qubit], [measured_ones.index(qubit)])
    equal(comm, moving.circuit(), Request(40, 4))


def case_probabilities_equal_single_rank(comm: Any) -> None:
    n = width(comm)
    circuit = crowded(n, 60, 14).circuit()
    equal(comm, circuit, Request(0, 1, ("probabilities",)))
    arrays = crowded(n, 60, 15, 4)
    for c, q in enumerate((n - 1, 2, n - 2, 8)):
        arrays.add("measure", [q], [c])
    near(comm, arrays.circuit())


def near(comm: Any, circuit: Circuit) -> None:
    """Probabilities are equal but for rounding: ranks sum theirs, and then these sums."""
    request = Request(0, 1, ("probabilities",))
    result = run(circuit, request)
    same = True
    if result is not None:
        outcome = alone(circuit, request)
        values = [np.frombuffer(each.probabilities) for each in (result, outcome)]
        same = result.probability_outcomes == outcome.probability_outcomes
        same = same and bool(np.abs(values[0] - values[1]).max() < 1e-14)
    assert agree(comm, same)


def case_results_of_branches_equal_single_rank(comm: Any) -> None:
    n = width(comm)
    result = equal(comm, histories(n, 3), Request(100, 5))
    assert agree(comm, result is None or "branches" in result.remark)
    equal(comm, histories(n, 2), Request(0, 5, ("probabilities",)), RunOptions(max_branches=64))
    equal(comm, histories(n, 2), Request(20, 5), RunOptions(max_branches=3))


def case_equal_branch_states_of_different_layout_are_merged(comm: Any) -> None:
    """One of two branches has brought the last qubit home; then they are equal again."""
    n = width(comm)
    arrays = Arrays(n, 4)
    for q in range(1, n):
        arrays.add("ry", [q], (), [0.3 + q])
    for clbit in range(3):
        arrays.add("h", [0]).add("measure", [0], [clbit]).add("reset", [0])
        arrays.begin((ir.CLBIT, clbit, 0)).add("h", [n - 1]).add("h", [n - 1]).add("end")
    arrays.add("h", [n - 1]).add("measure", [n - 1], [3])
    result = equal(comm, arrays.circuit(), Request(64, 5))
    assert agree(comm, result is None or result.remark.startswith("2 branches"))


def case_memory_limit_of_one_rank_does_not_change_counts(comm: Any) -> None:
    """Room for two shares in the last rank: the shots run in more groups, in all."""
    n = width(comm)
    value = (3 if comm.rank < comm.size - 1 else 2) * 16 << SHARE_QUBITS
    circuit, request = histories(n, 2), Request(20, 5)
    result = run(circuit, request, RunOptions(memory_bytes=value))
    same = True
    if result is not None:
        same = counts_of(result.row(0)) == counts_of(alone(circuit, request).row(0))
        same = same and int(result.remark.split()[0]) <= 3  # one more was asked for
    assert agree(comm, same)


def on_the_last(circuit: Circuit, n: int) -> Circuit:
    """The same on the last qubits of more, and of those in reverse; all are entangled before."""
    assert not circuit.slots_data
    first = crowded(n, 0, 1).circuit()
    rows = np.concatenate([circuit.table.rows, first.table.rows])[:, 1:].astype(np.uint16)
    qubits = (n - 1 - circuit.qubits.astype(np.int64)).astype(np.uint16)
    return msgspec.structs.replace(
        circuit,
        num_qubits=n,
        table=table_of(circuit.table.names + first.table.names, rows.tobytes()),
        ops_data=(first.ops + len(circuit.table.names)).astype(np.uint16).tobytes()
        + circuit.ops_data,
        qubits_data=first.qubits_data + qubits.tobytes(),
        params_data=first.params_data + circuit.params_data,
    )


def case_counts_of_dynamic_circuits_equal_single_rank(comm: Any) -> None:
    n = width(comm)
    options = RunOptions(max_steps=3000)
    ended = 0
    for circuit in given():
        wide, request = on_the_last(circuit, n), Request(6, 3)
        try:
            equal(comm, wide, request, options)
            ended += 1
        except TooManySteps:
            try:
                alone(wide, request, options)
            except TooManySteps:
                continue
            raise
    assert ended > 10
