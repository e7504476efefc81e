"""The same circuit over ranks and in one process; for cases of `among_ranks`."""

import functools
from typing import Any

import msgspec
import numpy as np
import pytest
from arrays import Arrays, measured
from numpy.typing import NDArray

from simulators.catalog.costs import COUNTS_QUBITS, SHARE_QUBITS
from simulators.circuit import ir
from simulators.circuit.gates import ANY, GATES
from simulators.circuit.ir import Circuit
from simulators.circuit.validation.admission import validation_error
from simulators.engine import EngineResult, Request, RunControl, RunOptions
from simulators.errors import EngineError
from simulators.statevector.engine import StatevectorEngine

State = NDArray[np.complexfloating[Any, Any]]
DOUBLE = RunOptions()
SINGLE = RunOptions(precision="single")


def width(comm: Any) -> int:
    """The narrowest state that all ranks share."""
    return max(COUNTS_QUBITS + 1, SHARE_QUBITS + comm.size.bit_length() - 1)


def run(
    circuit: Circuit, request: Request, options: RunOptions = DOUBLE,
    control: RunControl | None = None,
) -> EngineResult | None:  # fmt: skip
    engine = _engine()
    plan = engine.plan(circuit, None, options)
    return engine.run(plan, circuit, request, options, control or RunControl())


@functools.cache
def _engine() -> StatevectorEngine:
    from mpi4py import MPI

    return StatevectorEngine(comm=MPI.COMM_WORLD)


def alone(circuit: Circuit, request: Request, options: RunOptions = DOUBLE) -> EngineResult:
    engine = StatevectorEngine()
    return engine.run(engine.plan(circuit, None, options), circuit, request, options, RunControl())


def agree(comm: Any, truth: bool) -> bool:
    """What the first rank found, in all."""
    array = np.array([truth], np.int64)
    comm.Bcast(array, 0)
    return bool(array[0])


def equal(
    comm: Any, circuit: Circuit, request: Request, options: RunOptions = DOUBLE
) -> EngineResult | None:
    """Run both ways; all arrays are the same bits. The result, in the first rank."""
    assert validation_error(circuit) == ""
    result = run(circuit, request, options)
    assert (result is None) == (comm.rank > 0)
    same = True
    if result is not None:
        same = alike(result, alone(circuit, request, options))
    assert agree(comm, same)
    return result


def alike(found: EngineResult, one: EngineResult) -> bool:
    if (found.statevector is None) != (one.statevector is None):
        return False
    if found.statevector is not None and not np.array_equal(found.statevector, one.statevector):
        return False
    bare = [msgspec.structs.replace(each, statevector=None, remark="") for each in (found, one)]
    branches = [[w for w in each.remark.split(", ") if "branch" in w] for each in (found, one)]
    return bare[0] == bare[1] and branches[0] == branches[1]


def crowded(n: int, gates: int, seed: int, clbits: int = 0) -> Arrays:
    """All kinds of gates on all qubits; nothing can be left out, or cut."""
    rng = np.random.default_rng(seed)
    arrays = Arrays(n, clbits)
    for q in range(n):
        arrays.add("ry", [q], (), [0.3 + q])
    for name in rng.choice(sorted(GATES), gates):
        gate = GATES[str(name)]
        count = int(rng.integers(1, 6)) if gate.qubits == ANY else gate.qubits
        angles = rng.uniform(-3, 3, gate.params).tolist()
        arrays.add(gate.name, rng.permutation(n)[:count].tolist(), (), angles)
    return woven(arrays)


def woven(arrays: Arrays) -> Arrays:
    """Whatever is done then to one qubit depends on what was done before to each."""
    n = arrays.num_qubits
    for q in range(n - 1):
        arrays.add("cx", [q, q + 1])
    for q in range(n):
        arrays.add("ry", [q], (), [0.4 + 0.1 * q])
    return arrays


def chain(n: int) -> Circuit:
    """The bit of its last qubit depends on all."""
    arrays = Arrays(n, 1).add("h", [0])
    for q in range(n - 1):
        arrays.add("cx", [q, q + 1])
    return arrays.add("measure", [n - 1], [0]).circuit()


def histories(n: int, measurements: int) -> Circuit:
    """Each measurement leaves states that never become equal again."""
    arrays = Arrays(n, n)
    for q in reversed(range(n - measurements, n)):
        arrays.add("ry", [q], (), [0.9 + 0.1 * q]).add("measure", [q], [q])
        arrays.begin((ir.CLBIT, q, 0)).add("rx", [q], (), [0.3 + q]).add("end")
        arrays.add("cx", [q, (q + 1) % n])
    return measured(woven(arrays))


def raised(
    comm: Any, circuit: Circuit, kind: type[EngineError], shots: int = 10,
    outputs: tuple[str, ...] = ("counts",), **keywords: Any,
) -> str:  # fmt: skip
    """The message of the error that is raised in this rank."""
    with pytest.raises(kind) as caught:
        run(circuit, Request(shots, 1, outputs), **keywords)
    assert caught.type is kind
    assert caught.value.hint or kind is EngineError
    return caught.value.message
