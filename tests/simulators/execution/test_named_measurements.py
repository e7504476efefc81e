"""Measurement instructions with names of their own: own readout error and duration, any engine."""

import msgspec
import numpy as np
import pytest
from arrays import Arrays
from noisy import p_value

from noise_models import calibration
from noise_models.build import build
from noise_models.channel import relaxation
from noise_models.options import NoiseOptions
from noise_models.relations import compose
from simulators.circuit import ir
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.circuit.passes.components import active_part
from simulators.circuit.passes.light_cone import OutputSupport
from simulators.errors import Unsupported
from simulators.simulate import counts_of, simulate
from simulators.transfer.program import ConstantTable, build as transfer_program

ENGINES = ("densitymatrix", "mps", "stabilizer", "statevector")
OWN = 0.2  # error of measure_2 on qubit 0
UP, DOWN = 0.02, 0.05  # p01 and p10 of measure
SNAPSHOT = calibration.CalibrationSnapshot(
    name="pair", num_qubits=2, dynamic=True, native_gates=(calibration.NativeGate("x", 1),),
    qubits=(calibration.QubitCalibration(p01=UP, p10=DOWN, readout_ns=2_000.0),) * 2,
    gates=(calibration.GateCalibration("x"),),
    measurements=(
        calibration.MeasurementCalibration("measure_2", 0, OWN, 1_500.0),
        calibration.MeasurementCalibration("measure_2", 1, duration_ns=1_500.0),
    ),
)  # fmt: skip


def attached(circuit: ir.Circuit, noise: str = "on") -> NoiseProgram:
    return attach_noise(circuit, build(SNAPSHOT, NoiseOptions.parse(noise)))


def product(*ones: float) -> dict[int, float]:
    """Distribution of independent bits from their probabilities of 1, bit 0 first."""
    bits = np.array(np.meshgrid(*[[0, 1]] * len(ones), indexing="ij")).reshape(len(ones), -1).T
    return {
        int(sum(bit << k for k, bit in enumerate(row))): float(
            np.prod([p if bit else 1.0 - p for p, bit in zip(ones, row, strict=True)])
        )
        for row in bits.tolist()
    }


def last() -> ir.Circuit:
    circuit = Arrays(2, 2).add("x", [0]).add("measure_2", [0], [0])
    return circuit.add("measure", [1], [1]).circuit()


def repeated() -> ir.Circuit:
    """Qubit 0 is 1, then 0; one measurement of each name is not the last of its qubit."""
    circuit = Arrays(2, 3).add("x", [0]).add("measure_2", [0], [0]).add("x", [0])
    return circuit.add("measure_2", [0], [1]).add("measure_2", [1], [2]).circuit()


@pytest.mark.parametrize(
    ("engine", "circuit", "expected"),
    [
        *((engine, last(), product(1 - OWN, UP)) for engine in ENGINES),
        # Matrix product states have no measurements before the end of a circuit with noise.
        *((each, repeated(), product(1 - OWN, OWN, UP)) for each in ENGINES if each != "mps"),
    ],
)
def test_each_measurement_has_the_error_of_its_name(
    engine: str, circuit: ir.Circuit, expected: dict[int, float]
) -> None:
    result = simulate(circuit, engine=engine, shots=20_000, noise=attached(circuit), seed=5)
    assert p_value(expected, counts_of(result)) > 3e-7


@pytest.mark.parametrize("engine", ["densitymatrix", "statevector"])
def test_condition_follows_the_outcome_that_was_read(engine: str) -> None:
    circuit = Arrays(2, 2).add("x", [0]).add("measure_2", [0], [0])
    circuit.begin((ir.CLBIT, 0, 0)).add("x", [1]).add("end").add("measure", [1], [1])
    built = circuit.circuit()
    expected = {
        0: OWN * (1 - UP), 2: OWN * UP, 1: (1 - OWN) * DOWN, 3: (1 - OWN) * (1 - DOWN),
    }  # fmt: skip
    result = simulate(built, engine=engine, shots=20_000, noise=attached(built), seed=5)
    assert p_value(expected, counts_of(result)) > 3e-7


def test_name_has_no_meaning_without_noise() -> None:
    for engine in ENGINES:
        assert counts_of(simulate(repeated(), engine=engine, shots=100)) == {1: 100}


def test_factor_of_readout_and_replaced_values_act_on_every_measurement() -> None:
    readout = attached(last(), "off").readout
    assert readout is None or readout.flips(0, 1) == (0.0, 0.0)
    readout = attach_noise(
        last(), build(SNAPSHOT, NoiseOptions(factors=(("qubit.readout", 0.5),)))
    ).readout
    assert readout is not None
    assert readout.flips(0, 1) == (OWN / 2, OWN / 2)
    model = build(SNAPSHOT, NoiseOptions(values=(("qubit.p01", 0.3),)))
    readout = attach_noise(last(), model).readout
    assert readout is not None
    assert readout.flips(0, 1) == (0.3, DOWN)


def test_duration_of_its_name_is_in_the_schedule_and_in_the_relaxation_of_its_qubit() -> None:
    qubit = msgspec.structs.replace(SNAPSHOT.qubits[0], t1_us=50.0, t2_us=60.0)
    model = build(msgspec.structs.replace(SNAPSHOT, qubits=(qubit,) * 2))
    assert model.duration_ns("measure_2", (0,)) == 1_500.0
    assert model.duration_ns("measure_3", (0,)) == 2_000.0
    (found,) = model.after_gate("measure_2", (0,))
    assert np.allclose(found.channel.ptm, relaxation(1_500.0, 50.0, 60.0).ptm)
    assert attach_noise(repeated(), model).duration_ns == 3_000.0


def test_part_of_a_circuit_keeps_the_error_by_the_number_of_its_own_operation() -> None:
    circuit = Arrays(2, 1).add("x", [1]).add("x", [0]).add("measure_2", [0], [0]).circuit()
    part, noise = active_part(circuit, attached(circuit), OutputSupport(True, b""))
    assert part.operations.tolist() == [1, 2]
    assert noise.readout is not None
    assert noise.readout.own == {1: (OWN, OWN)}


def test_composition_reads_the_outcome_twice() -> None:
    model = build(SNAPSHOT)
    composed = compose(model, model).flips_of("measure_2", 0)
    assert composed == pytest.approx((2 * OWN * (1 - OWN),) * 2)
    assert compose(model, model).flips_of("measure_3", 0) is None


def test_transfer_simulator_refuses_it_by_name() -> None:
    with pytest.raises(Unsupported, match="measurements of other names"):
        transfer_program(last(), attached(last()), ConstantTable())
