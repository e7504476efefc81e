"""Check simenv-myqlm with the real classes of myQLM: python scripts/check_myqlm.py [--device NAME]

For holders of a licence of myQLM, in an environment where they have installed it themselves, with
`pip install distributions/simenv-myqlm` beside it and SIMENV_URL and SIMENV_TOKEN of a gateway.
Nothing of simenv installs myQLM, and no test or continuous integration of simenv runs this file.
Results are compared with PyLinalg, and the time of one evaluation is printed. Ends with 1 where a
check fails, and with 4 where it cannot run: without myQLM, the package or a gateway.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

CANNOT_RUN = 4
SHOTS = 4_000
SIGMAS = 5.0
EXTRA_MS = 3.0  # goal: an evaluation takes this much longer than in PyLinalg, at most
H2 = ((0.3435, "Z", [0]), (-0.4347, "Z", [1]), (0.5716, "ZZ", [0, 1]), (0.0910, "XX", [0, 1]),
      (0.0910, "YY", [0, 1]))  # fmt: skip


def shares(result: Any) -> dict[int, float]:
    return {int(sample.state.int): float(sample.probability) for sample in result}


def check_states(qpu: Any, exact: Any, ideal: bool) -> None:
    """Gates with controls and daggers, gates of matrices, routines, and orders of qubits."""
    import numpy as np
    from qat.lang.AQASM import (
        CNOT,
        ISWAP,
        PH,
        RX,
        RY,
        RZ,
        SQRTSWAP,
        SWAP,
        AbstractGate,
        H,
        Program,
        QRoutine,
        S,
        T,
        X,
    )  # fmt: skip

    turn = AbstractGate("TURN", [float], arity=1, matrix_generator=lambda a: np.array(
        [[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]]))  # fmt: skip
    routine = QRoutine()
    wires = routine.new_wires(2)
    H(wires[0])
    CNOT(wires)
    program = Program()
    qubits = program.qalloc(4)
    for k, qubit in enumerate(qubits):
        RY(0.3 + k)(qubit)
    program.apply(routine, qubits[2], qubits[0])
    program.apply(routine.ctrl(), qubits[1], qubits[2], qubits[3])
    for gate, on in (
        (S.dag(), [0]), (T, [1]), (RX(0.4).ctrl(), [2, 0]), (PH(0.7).ctrl().ctrl(), [3, 1, 0]),
        (ISWAP, [0, 2]), (SQRTSWAP.dag(), [1, 3]), (SWAP.ctrl(), [0, 3, 1]), (RZ(0.2).dag(), [3]),
        (turn(0.3), [1]), (turn(0.5).ctrl(), [2, 3]), (turn(0.9).dag(), [0]), (X.ctrl(), [1, 0]),
    ):  # fmt: skip
        program.apply(gate, *[qubits[k] for k in on])
    circuit = program.to_circ()
    for chosen in (None, [2, 0], [3, 1, 2]):
        expected = shares(exact.submit(circuit.to_job(qubits=chosen)))
        for shots in (0, SHOTS):
            found = shares(qpu.submit(circuit.to_job(qubits=chosen, nbshots=shots)))
            bound = (1e-9 if not shots else SIGMAS * 0.5 / math.sqrt(shots)) if ideal else 0.3
            for state in {*expected, *found}:
                gap = abs(expected.get(state, 0.0) - found.get(state, 0.0))
                assert gap < bound, (chosen, shots, state, gap)


def check_measurements(qpu: Any, _exact: Any, ideal: bool) -> None:
    """Measurements inside a circuit, conditions, resets, logic and break."""
    from qat.lang.AQASM import H, Program, X

    program = Program()
    qubits, bits = program.qalloc(2), program.calloc(2)
    H(qubits[0])
    program.measure(qubits[0], bits[0])
    program.logic(bits[1], ~bits[0])
    program.cc_apply(bits[0], X, qubits[1])
    program.reset(qubits[0])
    result = qpu.submit(program.to_circ().to_job(nbshots=SHOTS))
    for sample in result:
        first = sample.intermediate_measurements[0]
        if ideal:
            assert bool(first.cbits[0]) == bool(sample.state.int & 1), sample
        assert sample.err is not None
    program.cbreak(bits[0])
    reason = ""
    try:
        qpu.submit(program.to_circ().to_job(nbshots=SHOTS))
    except Exception as error:  # noqa: BLE001  # myQLM may wrap what a QPU raises
        reason = str(error)
    assert "break" in reason, f"a break whose condition held gave {reason!r}"


def variational() -> Any:
    """A job with four free parameters: the energy of H2."""
    from qat.core import Observable, Term
    from qat.lang.AQASM import CNOT, RY, Program

    program = Program()
    qubits = program.qalloc(2)
    angles = [program.new_var(float, f"a{k}") for k in range(4)]
    for k in (0, 1):
        RY(angles[k])(qubits[k])
    CNOT(qubits)
    for k in (0, 1):
        RY(angles[2 + k])(qubits[k])
    terms = [Term(weight, letters, where) for weight, letters, where in H2]
    observable = Observable(2, pauli_terms=terms, constant_coeff=0.2252)
    return program.to_circ().to_job(job_type="OBS", observable=observable)


def check_variational(qpu: Any, exact: Any, ideal: bool) -> None:
    """40 steps of an optimizer, and a batch of 100 in one sweep."""
    from qat.core import Batch
    from qat.plugins import ScipyMinimizePlugin

    optimizer = {"method": "COBYLA", "tol": 1e-4, "options": {"maxiter": 40},
                 "x0": [0.1, 2.9, 0.2, 0.3]}  # fmt: skip
    job = variational()
    energies = [
        (ScipyMinimizePlugin(**optimizer) | each).submit(job).value for each in (qpu, exact)
    ]
    assert abs(energies[0] - energies[1]) < (1e-6 if ideal else 0.2), energies
    points = [[0.1 + 0.01 * k, 2.9, 0.2, 0.3 - 0.02 * k] for k in range(100)]
    bound = [job(**{f"a{k}": value for k, value in enumerate(each)}) for each in points]
    found = list(qpu.submit(Batch(jobs=bound)))
    tasks = {each.meta_data["task"].partition(".")[0] for each in found}
    assert len(tasks) == 1, f"{len(tasks)} tasks for one batch"
    for own, one in zip(found[:3], bound, strict=False):
        reference = exact.submit(one).value.real
        assert abs(own.value.real - reference) < (1e-9 if ideal else 0.2), (own.value, reference)


def check_time(qpu: Any, exact: Any, ideal: bool) -> None:
    """Milliseconds of one evaluation; a goal of ideal pools."""
    job = variational()(a0=0.1, a1=2.9, a2=0.2, a3=0.3)

    def milliseconds(run: Callable[[Any], Any]) -> float:
        begin = time.perf_counter()
        run(job)
        return 1e3 * (time.perf_counter() - begin)

    rounds = [(milliseconds(qpu.submit), milliseconds(exact.submit)) for _ in range(60)][10:]
    ours, theirs = (statistics.median(column) for column in zip(*rounds, strict=True))
    met = "" if not ideal else "   met" if ours <= theirs + EXTRA_MS else "   MISSED"
    print(f"an evaluation: {ours:.1f} ms, PyLinalg {theirs:.1f} ms, goal + {EXTRA_MS:g} ms{met}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", help="an emulated device; default: an ideal pool")
    given = parser.parse_args()
    try:
        from qat.pylinalg import PyLinalg
        from simenv_myqlm import SimenvQPU
        from simenv_myqlm.errors import ConfigError, MissingMyQLMError
    except ImportError as error:
        hint = "licensees of myQLM install it themselves; pip install distributions/simenv-myqlm"
        print(f"cannot check: {error}\n  {hint}", file=sys.stderr)
        return CANNOT_RUN
    try:
        qpu = SimenvQPU(device=given.device)
    except (ConfigError, MissingMyQLMError) as error:
        print(f"cannot check: {error}", file=sys.stderr)
        return CANNOT_RUN
    failed = 0
    for check in (check_states, check_measurements, check_variational, check_time):
        try:
            check(qpu, PyLinalg(), given.device is None)
        except Exception as error:  # noqa: BLE001  # each check is reported
            failed = 1
            print(f"{check.__name__}: FAILED: {type(error).__name__}: {error}")
        else:
            print(f"{check.__name__}: passed")
    return failed


if __name__ == "__main__":
    sys.exit(main())
