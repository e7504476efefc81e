"""Ledgers of errors and of circuits."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from arrays import Arrays
from changed_devices import scaled_errors
from circuits import bell
from failing import fails
from msgspec.structs import replace
from qiskit import QuantumCircuit

from noise_models import document as documents, library
from noise_models.calibration import (
    CalibrationSnapshot,
    GateCalibration,
    LayerCalibration,
    LayerGate,
    MeasurementCrosstalk,
    NativeGate,
    PauliGenerator,
    PauliRotation,
    QubitCalibration,
    T1Jumps,
)
from noise_models.options import COMPONENTS, NoiseOptions
from simenv.calibration import ledger as module
from simenv.calibration.ledger import EdgeLoss, ErrorLedger, circuit_ledger, error_ledger
from simenv.errors import InfeasibleError, NotFoundError, OptionError
from simulators.circuit import ir
from simulators.circuit.ir import Circuit
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.simulate import simulate
from tests.noise_models.snapshots import linked

LATTICE = library.load("superconducting-lattice")
CHAIN = (0, 1, 2, 3)


def mirror(layers: int, seed: int, chain: tuple[int, ...] = CHAIN) -> Circuit:
    """Random layers of native gates, then their inverses: all qubits end in |0> without noise."""
    rng = np.random.default_rng(seed)
    steps: list[tuple[str, tuple[int, ...], list[float]]] = []
    for layer in range(layers):
        for qubit in chain:
            steps += [("rz", (qubit,), [rng.uniform(0, 6)]), ("sx", (qubit,), [])]
        pairs = list(itertools.pairwise(chain))
        steps += [("cz", pair, []) for pair in pairs[layer % 2 :: 2]]
    circuit = Arrays(LATTICE.num_qubits, len(chain))
    for name, qubits, params in steps:
        circuit.add(name, list(qubits), params=params)
    for name, qubits, params in reversed(steps):
        if name == "sx":  # its inverse in native gates
            for inverse in ("sx", "x"):
                circuit.add(inverse, list(qubits))
        else:
            circuit.add(name, list(qubits), params=[-angle for angle in params])
    for clbit, qubit in enumerate(chain):
        circuit.add("measure", [qubit], [clbit])
    return circuit.circuit()


def success(
    circuit: Circuit, snapshot: CalibrationSnapshot = LATTICE, *, of: int = 0, **factors: float
) -> float:
    """Exact probability of an outcome, of all qubits read as 0 unless told."""
    options = NoiseOptions.parse({name.replace("_", ".", 1): x for name, x in factors.items()})
    noise = attach_noise(circuit, documents.model(snapshot, options))
    options = {"noise": noise, "engine": "densitymatrix", "outputs": ("probabilities",), "shots": 0}
    result = simulate(circuit, **options).row(0)
    place = list(result.probability_outcomes[:: result.probability_width]).index(of)
    return float(np.frombuffer(result.probabilities)[place])


def ledger(circuit: Circuit, snapshot: CalibrationSnapshot = LATTICE) -> ErrorLedger:
    return error_ledger(circuit, snapshot, NoiseOptions())


@pytest.mark.parametrize("seed", range(4))
def test_the_sum_of_losses_is_that_of_the_exact_success_probability(seed: int) -> None:
    circuit = mirror(2 + seed, seed)
    result = ledger(circuit)
    assert result.loss == pytest.approx(-math.log(success(circuit, LATTICE)), rel=0.08)
    assert result.state == "ideal"


def test_each_component_is_what_its_ablation_gains() -> None:
    circuit = mirror(4, 9)
    result = math.log(success(circuit, LATTICE))
    losses = dict(ledger(circuit).components)
    for name, loss in losses.items():
        gained = math.log(success(circuit, LATTICE, **{name.replace(".", "_", 1): 0.0})) - result
        # A part of the thermal population and of crosstalk is second order.
        assert loss == pytest.approx(gained, rel=0.15, abs=2e-3), name
    assert {"gate.depolarizing", "qubit.readout", "qubit.idle"} <= set(losses)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("component", ["gate.crosstalk", "gate.coherent"])
def test_losses_of_coherent_errors_are_those_of_exact_densities(component: str, seed: int) -> None:
    """Half of the second difference by the factor of a component that acts alone, at 0."""
    circuit, step = mirror(2 + seed, seed), 0.1
    others = {name.replace(".", "_", 1): 0.0 for name in COMPONENTS}
    alone = {**others, component.replace(".", "_", 1): step}
    exact = -math.log(success(circuit, LATTICE, **alone)) / step**2
    assert dict(ledger(circuit).components)[component] == pytest.approx(exact, rel=0.01)


def worse(pair: tuple[int, int], factor: float) -> CalibrationSnapshot:
    return scaled_errors(LATTICE, factor, lambda gate: set(gate.qubits) == set(pair))


def test_the_pair_with_the_largest_loss_stands_out() -> None:
    circuit, bad = mirror(4, 3), worse((1, 2), 6.0)
    result = ledger(circuit, bad)
    assert result.avoid.qubits == (1, 2)
    gained = math.log(success(circuit, LATTICE)) - math.log(success(circuit, bad))
    before = {edge.qubits: edge.loss for edge in ledger(circuit).edges}
    assert result.avoid.loss - before[1, 2] == pytest.approx(gained, rel=0.1)


def test_pairs_that_stand_out_are_named_by_what_they_cost() -> None:
    def edge(pair: tuple[int, int], uses: int, loss: float) -> EdgeLoss:
        return EdgeLoss(pair, uses, loss, 0.0)

    alike = tuple(edge((k, k + 1), 4, 0.02) for k in range(4, 9))
    rare, often = edge((0, 1), 1, 0.011), edge((1, 2), 7, 0.07)
    assert module._outstanding((often, *alike, rare)) is often
    assert module._outstanding((*alike, rare)) is rare

    def equal(gate: GateCalibration) -> GateCalibration:
        two = len(gate.qubits) == 2
        return replace(gate, error=0.004) if two else gate

    alike = replace(LATTICE, gates=tuple(map(equal, LATTICE.gates)), zz=())
    assert ledger(mirror(4, 3), alike).avoid is None


def test_losses_of_qubits_and_components_have_one_sum() -> None:
    result = ledger(mirror(3, 5))
    assert sum(loss for _, loss in result.qubits) == pytest.approx(result.loss)
    assert {qubit for qubit, _ in result.qubits} == set(CHAIN)
    gates = sum(gate.loss for gate in result.gates)
    names = ("gate.depolarizing", "gate.coherent", "qubit.relaxation")
    assert gates == pytest.approx(sum(dict(result.components).get(name, 0.0) for name in names))
    circuit = Arrays(27, 2).add("x", [0]).add("barrier", [0, 1]).add("cz", [0, 1])
    circuit.add("measure", [0], [0]).add("measure", [1], [1])
    table = dict(ledger(circuit.circuit()).components)
    result = math.log(success(circuit.circuit(), of=1))
    assert sum(table.values()) == pytest.approx(-result, rel=0.05)


def test_wide_circuits_are_judged_for_a_mixed_state() -> None:
    circuit = Arrays(27, 27)
    for qubit in range(27):
        circuit.add("sx", [qubit])
    for pair in LATTICE.coupling[::4]:
        circuit.add("cz", list(pair))
    for qubit in range(27):
        circuit.add("measure", [qubit], [qubit])
    result = ledger(circuit.circuit())
    assert result.state == "mixed"
    assert 0.0 < result.fidelity < 0.9


def test_a_circuit_that_resets_or_branches_has_the_losses_of_a_mixed_state() -> None:
    """Nothing is lost at a reset; a gate under a condition counts."""
    circuit = Arrays(2, 2).add("sx", [0]).add("reset", [0])
    circuit.add("sx", [0]).add("measure", [0], [0])
    result = ledger(circuit.circuit())
    assert result.state == "mixed"
    alone = ledger(Arrays(2, 2).add("sx", [0]).add("measure", [0], [0]).circuit())
    assert result.gates[0].loss == pytest.approx(alone.gates[0].loss, rel=0.5)
    circuit.begin((ir.CLBIT, 0, 0)).add("x", [1]).add("end").add("measure", [1], [1])
    result = ledger(circuit.circuit())
    assert {"sx", "x"} == {each.name for each in result.gates}
    assert 0.0 < result.loss < 0.2


@pytest.mark.parametrize("gate", ["x", ""])
def test_a_readout_that_is_not_the_last_loses_by_relaxation(gate: str) -> None:
    circuit = Arrays(2, 3).add("x", [0]).add("measure", [0], [0])
    for _ in range(2 if gate else 0):
        circuit.add(gate, [0])
    built = circuit.add("x", [1]).add("measure", [0], [1]).add("measure", [1], [2]).circuit()
    result = ledger(built)
    assert result.loss == pytest.approx(-math.log(success(built, LATTICE, of=0b111)), rel=0.05)
    qubit = LATTICE.qubits[0]
    assert qubit.readout_ns
    assert qubit.t1_us
    relaxed = 1e-3 * qubit.readout_ns / qubit.t1_us
    assert dict(result.components)["qubit.relaxation"] > 0.9 * relaxed


DEVICE = "superconducting-lattice"


def test_ledgers_are_of_circuits_or_files_with_noise_options() -> None:
    path = Path(__file__).parents[4] / "examples" / "bell.qasm"
    result = circuit_ledger(bell(), DEVICE)
    assert 0.9 < result.fidelity < 1.0
    assert result.loss == pytest.approx(sum(loss for _, loss in result.components))
    assert circuit_ledger(path, DEVICE) == result
    result = circuit_ledger(bell(), DEVICE, noise={"qubit": 0, "gate.crosstalk": 0})
    assert {name for name, _ in result.components} == {"gate.depolarizing", "gate.coherent"}
    fails(OptionError, "no noise acts", circuit_ledger, bell(), DEVICE, noise="off")
    fails(OptionError, "compile='often'", circuit_ledger, bell(), DEVICE, compile="often")
    fails(NotFoundError, "nowhere", circuit_ledger, bell(), "nowhere")
    fails(InfeasibleError, r"qubit 0.* no native", circuit_ledger, bell(), DEVICE, compile="never")


@pytest.mark.parametrize("device", [DEVICE, "trapped-ions"])
def test_recipe_of_aer_has_a_ledger_without_components_that_it_lacks(device: str) -> None:
    names = {name for name, _ in circuit_ledger(bell(), device, noise="aer").components}
    assert {"gate.depolarizing", "qubit.readout"} <= names
    assert not names & {"gate.coherent", "gate.crosstalk", "qubit.preparation"}


def test_a_branch_on_a_device_by_name_has_a_ledger() -> None:
    circuit = QuantumCircuit(1, 2)
    circuit.measure(0, 0)
    with circuit.if_test((0, 1)):
        circuit.x(0)
    circuit.measure(0, 1)
    found = circuit_ledger(circuit, DEVICE)
    assert found.state == "mixed"
    assert "qubit.readout" in dict(found.components)


def test_detunings_of_a_shot_are_a_line_whose_phases_add() -> None:
    """A half turn in the middle of a wait takes nearly all of the loss away."""
    snapshot = replace(
        LATTICE, qubits=(QubitCalibration(t2_star_us=10.0),) * LATTICE.num_qubits, zz=(),
        gates=tuple(replace(g, error=0.0, over_rotation_rad=None)
                    for g in LATTICE.gates),
    )  # fmt: skip

    def waiting(*parts_us: float) -> Circuit:
        circuit = Arrays(LATTICE.num_qubits, 1).add("sx", [0])
        for number, part_us in enumerate(parts_us):
            circuit.add("delay", [0], params=[1e3 * part_us])
            if number < len(parts_us) - 1:
                circuit.add("x", [0])
        return circuit.add("sx", [0]).add("measure", [0], [0]).circuit()

    ramsey, echo = ledger(waiting(2.0), snapshot), ledger(waiting(1.0, 1.0), snapshot)
    assert dict(ramsey.components).keys() == {"qubit.quasistatic"}
    expected = success(waiting(2.0), snapshot, of=1)
    assert (ramsey.loss, ramsey.qubits[0][0]) == (pytest.approx(-math.log(expected), rel=0.03), 0)
    assert abs(echo.loss) < 1e-3 * ramsey.loss


def test_a_jump_of_t1_is_a_line_beside_relaxation() -> None:
    """|1> waits for 1 us: it decays with the rate of the calibrated T1, and with that of the
    jump."""
    qubit = QubitCalibration(t1_us=100.0, t2_us=100.0, t1_jumps=T1Jumps(1.0, 600.0, 0.2, low=True))
    snapshot = CalibrationSnapshot("jumped", 1, all_to_all=True, qubits=(qubit,))
    circuit = Arrays(1, 1).add("x", [0]).add("delay", [0], params=[1_000.0]).measure([0]).circuit()
    lines = dict(error_ledger(circuit, snapshot, NoiseOptions()).components)
    assert lines == {
        "qubit.idle": pytest.approx(0.01, rel=0.02),
        "qubit.t1_jumps": pytest.approx(0.04, rel=0.03),
    }
    off = error_ledger(circuit, snapshot, NoiseOptions.parse({"qubit.t1_jumps": 0}))
    assert dict(off.components).keys() == {"qubit.idle"}
    aer = {"recipe": "aer", "qubit.t1_jumps": 0.0}
    usual = replace(qubit, t1_jumps=None)
    calibrated = replace(snapshot, qubits=(usual,))
    off = error_ledger(circuit, snapshot, NoiseOptions.parse(aer))
    without = error_ledger(circuit, calibrated, NoiseOptions.parse("aer"))
    assert off.components == without.components
    assert dict(off.components)["qubit.idle"] > 0.0


def test_memory_errors_are_a_line_of_each_qubit() -> None:
    """A layer of another pair dephases a qubit that waits as Z with probability 1.5 e."""
    ions = CalibrationSnapshot(
        "ions", 3, all_to_all=True,
        qubits=tuple(QubitCalibration(memory_error=e) for e in (2e-3, 0.0, 0.0)),
    )  # fmt: skip
    circuit = Arrays(3, 3).add("h", [0]).add("h", [1]).add("h", [2]).add("barrier", [0, 1, 2])
    for _ in range(5):
        circuit.add("cz", [1, 2])
    circuit.add("barrier", [0, 1, 2]).add("h", [0]).measure(range(3))
    result = error_ledger(circuit.circuit(), ions, NoiseOptions())
    assert result.loss == pytest.approx(5 * 1.5 * 2e-3, rel=0.02)
    assert (dict(result.components).keys(), dict(result.qubits).keys()) == ({"qubit.memory"}, {0})
    off = error_ledger(circuit.circuit(), ions, NoiseOptions.parse({"qubit.memory": 0}))
    assert off.loss == 0.0


def test_transitions_and_crosstalk_of_measurements_are_lines_of_their_own() -> None:
    qubits = tuple(QubitCalibration(measure_decay=4e-3) for _ in range(2))
    snapshot = CalibrationSnapshot(
        "read", 2, all_to_all=True, dynamic=True, qubits=qubits,
        measurement_crosstalk=(MeasurementCrosstalk((0, 1), 2e-3),),
    )  # fmt: skip
    circuit = Arrays(2, 3).add("x", [0]).add("h", [1]).add("measure", [0], [0])
    circuit.add("barrier", [0, 1]).add("h", [1]).add("measure", [0], [1]).add("measure", [1], [2])
    result = error_ledger(circuit.circuit(), snapshot, NoiseOptions())
    lines = dict(result.components)
    assert lines["qubit.measurement"] == pytest.approx(4e-3, rel=0.02)
    assert lines["qubit.measurement_crosstalk"] == pytest.approx(1.5 * 2e-3, rel=0.02)
    assert dict(result.qubits).keys() == {0, 1}


def test_errors_of_layers_are_a_line_in_place_of_those_of_their_gates() -> None:
    """X on both inner qubits flips two outcomes; the gates alone have errors of their own."""
    pairs = (LayerGate("cz", (0, 1)), LayerGate("cz", (2, 3)))
    together = LayerCalibration(pairs, (0, 1, 2, 3), (PauliGenerator("XX", (1, 2), 0.01),))
    device = CalibrationSnapshot(
        "layered", 4, native_gates=(NativeGate("cz", 2),), coupling=((0, 1), (1, 2), (2, 3)),
        gates=(GateCalibration("cz", (), 0.05, 200.0),), layers=(together,),
    )  # fmt: skip
    layer = Arrays(4, 4).add("cz", [0, 1]).add("cz", [2, 3]).measure(range(4)).circuit()
    result = ledger(layer, device)
    loss = (1.0 - math.exp(-0.02)) / 2.0
    assert dict(result.components) == pytest.approx({"gate.layer": loss}, rel=0.02)
    assert {(each.name, each.qubits) for each in result.gates} == {("cz", (0, 1)), ("cz", (2, 3))}
    assert [each.loss for each in result.gates] == pytest.approx([loss / 2] * 2, rel=0.02)
    own = error_ledger(layer, device, NoiseOptions.parse({"gate.layer": 0}))
    assert dict(own.components).keys() == {"gate.depolarizing"}


def test_leakage_is_a_line_of_each_gate_and_qubit() -> None:
    """Two half turns take a qubit to |1>, from which the second one leaks."""
    snapshot = replace(
        LATTICE, qubits=(), zz=(),
        gates=tuple(replace(g, error=0.0, over_rotation_rad=None, duration_ns=0.0,
                                            leakage=0.01 if g.name == "sx" else None)
                    for g in LATTICE.gates),
    )  # fmt: skip
    circuit = Arrays(LATTICE.num_qubits, 1).add("sx", [0]).add("sx", [0]).add("sx", [0])
    found = ledger(circuit.add("measure", [0], [0]).circuit(), snapshot)
    assert dict(found.components).keys() == {"gate.leakage"}
    # Populations of |1> after the gates: 1/2, 1, 1/2; half of the shots of the first two mix.
    stays = math.sqrt(0.98)
    first = 1.0 - ((1.0 + stays) / 2.0) ** 2
    assert (found.loss, found.gates[0].name) == (pytest.approx(first + 0.02 + 0.01, rel=1e-6), "sx")
    assert found.qubits[0][0] == 0


def test_rotations_of_a_pair_are_named_with_their_part_of_the_loss() -> None:
    """The first letter acts on the first qubit of the gate as it is used."""
    turns = (PauliRotation("ZZ", 0.08), PauliRotation("IZ", 0.06))
    snapshot = CalibrationSnapshot(
        "pair", 2, coupling=((0, 1),), native_gates=(NativeGate("h", 1), NativeGate("cz", 2)),
        gates=(GateCalibration("h", (), 0.0), GateCalibration("cz", (0, 1), 0.01, rotations=turns)),
    )  # fmt: skip
    for pair, names in (((0, 1), ("ZZ", "IZ")), ((1, 0), ("ZZ", "ZI"))):
        circuit = Arrays(2, 2).add("h", [0]).add("h", [1]).add("cz", pair).add("h", [0])
        circuit = circuit.add("h", [1]).measure([0, 1]).circuit()
        (gate,) = ledger(circuit, snapshot).gates
        assert gate.rotations == tuple(zip(names, (0.08, 0.06), strict=True))
        assert gate.turns == f"ZZ +0.080, {names[1]} +0.060 rad"
        assert 0.0 < gate.coherent < gate.loss
        assert dict(ledger(circuit, snapshot).components)["gate.coherent"] == gate.coherent
        without = NoiseOptions.parse({"gate.coherent": 0})
        (gate,) = error_ledger(circuit, snapshot, without).gates
        assert (gate.rotations, gate.coherent) == ((), 0.0)


def test_pairs_and_waits_of_links_have_rows_of_their_own() -> None:
    """That of the wait is what its ablation gains; that of the pair is of its gate."""
    device, link = linked(), linked().links[0]
    circuit = Arrays(6, 3).add("sx", [0]).add("barrier", list(range(6)))
    for qubit in link.pair:
        circuit.add("delay", [qubit], params=[link.mean_wait_ns])
    for qubit in link.pair:
        circuit.add("reset", [qubit])
    circuit.add("rxx", list(link.pair), params=[math.pi / 2]).add("barrier", list(range(6)))
    for name in ("sx", "x"):
        circuit.add(name, [0])
    found = ledger(circuit.add("measure", [0], [0]).circuit(), device)
    gained = [
        math.log(success(circuit.circuit(), device, link_wait=factor)) for factor in (0.0, 1.0)
    ]
    assert dict(found.components)["link.wait"] == pytest.approx(gained[0] - gained[1], rel=0.1)
    assert "link.pair" not in dict(found.components)  # the pair is not measured
    for bit, qubit in enumerate(link.pair, 1):
        circuit.add("measure", [qubit], [bit])
    found = ledger(circuit.circuit(), device)
    loss = dict(found.components)["link.pair"]
    assert 0.03 < loss < 0.06
    assert [each.loss for each in found.gates if each.name == "rxx"] == pytest.approx([loss])
