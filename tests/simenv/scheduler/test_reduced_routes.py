"""What is taken into account of programs of which an engine runs only a part."""

import msgspec
import pytest
from arrays import Arrays
from failing import fails

from simenv.errors import InfeasibleError
from simenv.model import Observable, PoolSpec, TaskOptions
from simenv.scheduler.core import ClusterLimits, Route
from simenv.scheduler.routing import engine_choice
from simenv.service import program_rules
from simulators import catalog
from simulators.catalog import cards
from simulators.circuit.analysis.profiler import profile
from simulators.circuit.ir import Circuit

LIMITS = ClusterLimits(4, 2**30, 10**6, 2**34, 1, 1)
ENGINE = catalog.card("statevector")


@pytest.fixture(autouse=True)
def everything_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "_installed", lambda modules: True)


def tangled(width: int, apart: int, measured: int) -> Circuit:
    """Groups of `apart` qubits in which each depends on all, and no others; `measured` of each."""
    arrays = Arrays(width, width)
    for layer in range(2):
        for q in range(width):
            arrays.add("rx", [q], (), [0.3 + layer])
        for first in range(0, width, apart):
            for q in range(first, first + apart):
                for other in range(first, q):
                    arrays.add("cz", [other, q])
    for q in range(width):
        arrays.add("rx", [q], (), [0.3])
        if q % apart < measured:
            arrays.add("measure", [q], [q])
    return arrays.circuit()


def routed(circuit: Circuit, engine: str = "auto", outputs: tuple[str, ...] = ("counts",),
           labels: tuple[str, ...] = ()) -> Route:  # fmt: skip
    sums = (Observable(labels, b"\0" * 8 * len(labels)),) if labels else ()
    terms = TaskOptions(outputs=outputs, observables=sums, engine=engine)
    result = profile(circuit, terms.outputs, program_rules.labels(terms))
    return engine_choice.choose(result, terms, (PoolSpec("main"),), LIMITS)


def test_program_is_routed_by_width_of_its_widest_independent_part() -> None:
    outcome = tangled(20, 20, 20)
    apart = tangled(60, 20, 20)
    assert profile(outcome, ("counts",)).kept is None
    alone, result = routed(outcome), routed(apart)
    assert result.engine == alone.engine == "statevector"
    assert result.num_qubits == 20
    assert "20 of 60 qubits at once" in result.reason
    assert alone.memory_bytes <= result.memory_bytes < 1.5 * alone.memory_bytes
    assert alone.evolve_us < result.evolve_us < 6 * alone.evolve_us
    fails(InfeasibleError, "60 qubits", routed, apart, "aer")
    wide = routed(tangled(24, 12, 2), outputs=("probabilities",))
    assert wide.num_qubits == 24  # the distribution is of all


def test_outputs_determine_reduction_of_large_programs() -> None:
    circuit = tangled(60, 20, 0)
    label = "I" * 59 + "X"
    assert routed(circuit, outputs=("expectation",), labels=(label,)).num_qubits == 20
    fails(InfeasibleError, "", routed, circuit, "statevector", outputs=("statevector",))
    with pytest.raises(InfeasibleError):
        routed(circuit, "statevector", outputs=("expectation",), labels=(label, "Z" * 59))
    with pytest.raises(InfeasibleError):  # too wide, whatever is left out
        routed(tangled(60, 30, 30), "statevector")
    circuit = tangled(12, 6, 1)
    assert profile(circuit, ("counts",)) == profile(circuit)


def test_only_engines_that_reduce_programs_get_reduced_profile() -> None:
    result = profile(tangled(20, 10, 1), ("counts",))
    assert result.kept.widest == 10
    assert result.kept.operations < result.operations
    assert catalog.card("aer").effective_profile(result, ("counts",)) is result
    outcome = ENGINE.effective_profile(result, ("counts",))
    assert (outcome.num_qubits, outcome.operations) == (10, result.kept.operations)
    assert (outcome.gates_1q + outcome.gates_2q + outcome.gates_many) == outcome.operations - 2
    assert msgspec.structs.replace(outcome, num_qubits=20).num_clbits == result.num_clbits
