"""Records of circuits on a real gateway, an ideal pool and the emulated device fez."""

import itertools
import math
import os
import signal
import threading
from typing import Any

import numpy as np
import pytest
from failing import fails
from live import Live
from myqlm_circuits import mean_of, state_of
from simenv_myqlm import GatewayConnection, Runner
from simenv_myqlm.errors import BreakError, ConfigError, GatewayError, NoGatewayError
from simenv_myqlm.records import (
    Break,
    Circuit,
    Gate,
    Job,
    Logic,
    Measure,
    Observable,
    Reset,
    Result,
    Term,
)

from simenv import config
from simenv.client.client import Client
from simenv.client.history import LogRow

SHOTS = 4_000
SIGMAS = 5.0
H0, CNOT = Gate("H", (), (0,)), Gate("CNOT", (), (0, 1))
BELL = Circuit(2, (H0, CNOT))
GHZ = Circuit(5, (H0, *(Gate("CNOT", (), (k, k + 1)) for k in range(4))))
# H2 at its equilibrium, two qubits: O'Malley et al., Phys. Rev. X 6, 031007 (2016).
H2 = Observable(
    (
        Term(0.3435, "Z", (0,)), Term(-0.4347, "Z", (1,)), Term(0.5716, "ZZ", (0, 1)),
        Term(0.0910, "XX", (0, 1)), Term(0.0910, "YY", (0, 1)),
    ),
    0.2252,
)  # fmt: skip
H2_GROUND = -1.1456


def unitary(random: np.random.Generator, size: int) -> Any:
    matrix = random.standard_normal((size, size)) + 1j * random.standard_normal((size, size))
    found, triangle = np.linalg.qr(matrix)
    found = found * (np.diag(triangle) / abs(np.diag(triangle)))
    return tuple(tuple(map(complex, row)) for row in found)


def random_circuit(seed: int) -> Circuit:
    """Gates of all kinds, with controls and daggers."""
    random = np.random.default_rng(seed)
    kinds = {
        "I": (0, 1), "H": (0, 1), "X": (0, 1), "Y": (0, 1), "Z": (0, 1), "S": (0, 1), "T": (0, 1),
        "RX": (1, 1), "RY": (1, 1), "RZ": (1, 1), "PH": (1, 1), "CNOT": (0, 2), "CSIGN": (0, 2),
        "CCNOT": (0, 3), "SWAP": (0, 2), "ISWAP": (0, 2), "SQRTSWAP": (0, 2), "U3": (3, 1),
        "U2": (2, 1), "U1": (1, 1), "RXX": (1, 2), "RYY": (1, 2), "RZZ": (1, 2), "ANY": (0, 1),
        "ANY2": (0, 2),
    }  # fmt: skip
    gates = [Gate("H", (), (k,)) for k in range(5)]
    for name in random.permutation(list(kinds)):
        angles, size = kinds[name]
        prefix = random.choice(["", "", "D-", "C-", "C-C-", "D-C-", "C-D-"])
        controls = prefix.count("C")
        if controls + size > 5:
            prefix, controls = "", 0
        qubits = random.permutation(5)[: controls + size]
        matrix = unitary(random, 1 << size) if name.startswith("ANY") else None
        params = tuple(random.uniform(-4, 4, angles))
        gates.append(Gate(prefix + str(name), params, tuple(map(int, qubits)), matrix))
    return Circuit(5, tuple(gates))


def probabilities(result: Result) -> dict[int, float]:
    return {sample.state: sample.probability or 0.0 for sample in result.samples}


def test_amplitudes_of_random_circuits_are_those_of_their_matrices(
    connection: GatewayConnection,
) -> None:
    circuits = [random_circuit(seed) for seed in range(12)]
    found = Runner(connection, amplitudes=True).run([Job(circuit) for circuit in circuits])
    for circuit, result in zip(circuits, found, strict=True):
        state = np.zeros(32, dtype=np.complex128)
        for sample in result.samples:
            assert sample.amplitude is not None
            state[sample.state] = sample.amplitude
        assert abs(abs(np.vdot(state, state_of(circuit))) - 1) < 1e-9


@pytest.mark.parametrize("device", [None, "fez"])
def test_bell_and_ghz_states_have_both_outcomes(
    connection: GatewayConnection, device: str | None
) -> None:
    runner = Runner(connection, device=device, seed=3)
    bell, ghz = runner.run([Job(BELL, SHOTS), Job(GHZ, SHOTS)])
    for result, last in ((bell, 3), (ghz, 31)):
        shares = probabilities(result)
        assert sum(shares.values()) == pytest.approx(1)
        ends = shares[0] + shares[last]
        assert ends == pytest.approx(1) if device is None else 0.6 < ends < 1
        assert abs(shares[0] - shares[last]) < 0.2
        for sample in result.samples:
            share = sample.probability or 0.0
            assert sample.err == pytest.approx(math.sqrt(share * (1 - share) / (SHOTS - 1)))
        assert result.meta_data["device"] == "fez" if device else "device" not in result.meta_data
        assert result.meta_data["task"].startswith("t-")


def test_states_of_subsets_are_in_the_order_of_the_list(connection: GatewayConnection) -> None:
    flipped = Circuit(3, (Gate("X", (), (2,)), Gate("RY", (0.4,), (1,))))
    asked = [
        Job(flipped, shots, qubits) for shots in (0, 500) for qubits in ((2, 0), (0, 2), (1, 2))
    ]
    found = [probabilities(each) for each in Runner(connection).run(asked)]
    assert [set(each) for each in found] == 2 * [{2}, {1}, {1, 3}]
    assert found[2][3] == pytest.approx(math.sin(0.2) ** 2)


def test_exact_samples_have_no_errors_and_leave_small_states_out(
    connection: GatewayConnection,
) -> None:
    turned = Circuit(1, (Gate("RY", (2e-3,), (0,)),))
    both, large = Runner(connection).run([Job(turned), Job(turned, amp_threshold=0.1)])
    assert [sample.err for sample in both.samples] == [None, None]
    assert both.samples[1].probability == pytest.approx(1e-6, rel=1e-3)
    assert [sample.state for sample in large.samples] == [0]


def test_samples_that_are_not_aggregated_come_shot_by_shot(connection: GatewayConnection) -> None:
    (result,) = Runner(connection, seed=1).run([Job(BELL, 50, aggregate=False)])
    assert len(result.samples) == 50
    assert {sample.state for sample in result.samples} == {0, 3}


def ansatz(angles: Any) -> Circuit:
    return Circuit(
        2,
        (Gate("RY", (angles[0],), (0,)), Gate("RY", (angles[1],), (1,)), CNOT,
         Gate("RY", (angles[2],), (0,)), Gate("RY", (angles[3],), (1,))),
    )  # fmt: skip


def test_vqe_of_40_steps_is_the_same_by_sweeps_and_step_by_step(
    connection: GatewayConnection,
) -> None:
    """Gradient descent by parameter shifts: eight jobs a step that differ in angles alone."""
    runner = Runner(connection)
    angles = np.array([0.1, 2.9, 0.2, 0.3])
    start, energies = angles.copy(), []
    shifts = np.concatenate([np.eye(4), -np.eye(4)]) * math.pi / 2
    for _ in range(40):
        jobs = [Job(ansatz(angles + shift), observable=H2) for shift in [0 * angles, *shifts]]
        found = runner.run(jobs)
        assert len({each.meta_data["task"].partition(".")[0] for each in found}) == 1  # one sweep
        values = np.array([each.value for each in found])
        energies.append(values[0])
        angles = angles - 0.5 * (values[1:5] - values[5:]) / 2
    assert energies[-1] == pytest.approx(H2_GROUND, abs=2e-3)
    again = start
    for energy in energies[:4]:
        values = np.array(
            [runner.run([Job(ansatz(again + shift), observable=H2)])[0].value for shift in shifts]
        )
        (here,) = runner.run([Job(ansatz(again), observable=H2)])
        assert here.value == pytest.approx(energy, abs=1e-9)
        again = again - 0.5 * (values[:4] - values[4:]) / 2


def test_vqe_of_40_steps_finds_the_ground_state_on_a_device(
    connection: GatewayConnection,
) -> None:
    """The descent with shots and the noise of fez: its angles are judged without noise."""
    runner = Runner(connection, device="fez", seed=9)
    angles = np.array([0.1, 2.9, 0.2, 0.3])
    shifts = np.concatenate([np.eye(4), -np.eye(4)]) * math.pi / 2
    measured = []
    for _ in range(40):
        jobs = [
            Job(ansatz(angles + shift), 1_000, observable=H2) for shift in [0 * angles, *shifts]
        ]
        found = runner.run(jobs)
        assert len({each.meta_data["task"].partition(".")[0] for each in found}) == 1  # one sweep
        values = np.array([each.value for each in found])
        measured.append(values[0])
        angles = angles - 0.5 * (values[1:5] - values[5:]) / 2
    assert mean_of(H2, ansatz(angles)) == pytest.approx(H2_GROUND, abs=0.03)
    last = np.mean(measured[-10:])
    assert H2_GROUND + 0.003 < last < H2_GROUND + 0.1  # noise raises the energy


@pytest.mark.parametrize("device", [None, "fez"])
def test_observables_have_the_error_of_their_shots(
    connection: GatewayConnection, device: str | None
) -> None:
    angles = (0.1, 2.9, 0.2, 0.3)
    exact = mean_of(H2, ansatz(angles))
    runner = Runner(connection, device=device, seed=4)
    (result,) = runner.run([Job(ansatz(angles), SHOTS, observable=H2)])
    assert result.value is not None
    assert result.error is not None
    assert 0 < result.error < 0.05
    allowed = SIGMAS * result.error if device is None else 0.15
    assert abs(result.value - exact) < allowed
    if device is None:
        (constant,) = runner.run([Job(BELL, observable=Observable((Term(2, "I", (1,)),), 3))])
        assert constant.value == pytest.approx(5)


DYNAMIC = (
    H0, Measure((0,), (0,)), Logic("NOT 0", 1), Gate("X", (), (1,), controls=(1,)),
    Reset((0,), (0,)), Gate("RX", (math.pi,), (0,), formula="XOR 0 NOT 1"),
)  # fmt: skip


def test_intermediate_measurements_on_a_device_have_its_errors(
    connection: GatewayConnection,
) -> None:
    (result,) = Runner(connection, device="fez", seed=6).run([Job(Circuit(2, DYNAMIC), SHOTS)])
    right = 0.0
    for sample in result.samples:
        first, second = sample.intermediate_measurements
        assert [first.gate_pos, second.gate_pos] == [1, 4]
        right += (
            (sample.probability or 0.0)
            * (first.cbits == second.cbits)
            * (sample.state == (2 if first.cbits == (True,) else 1))
        )
    assert 0.8 < right < 0.999


def test_intermediate_measurements_and_conditions_are_reported(
    connection: GatewayConnection,
) -> None:
    (result,) = Runner(connection, seed=6).run([Job(Circuit(2, DYNAMIC), SHOTS)])
    # 1 was measured: qubit 1 stays 0, qubit 0 is reset and then turned, as cbits 0 and 1 are 0.
    outcomes = {
        sample.state: [(each.gate_pos, each.cbits) for each in sample.intermediate_measurements]
        for sample in result.samples
    }
    assert outcomes == {1: [(1, (False,)), (4, (False,))], 2: [(1, (True,)), (4, (True,))]}
    share = probabilities(result)[1]
    assert abs(share - 0.5) < SIGMAS * 0.5 / math.sqrt(SHOTS)


def test_a_break_whose_condition_holds_is_an_error(connection: GatewayConnection) -> None:
    runner = Runner(connection, seed=6)
    runner.run([Job(Circuit(2, (*DYNAMIC, Break("AND 0 1"))), 100)])
    error = fails(BreakError, "break at instruction 6", runner.run,
                  [Job(Circuit(2, (*DYNAMIC, Break("NOT 1"))), 100)])  # fmt: skip
    assert 20 < error.shots < 80


def test_refusals_name_the_job_the_reason_and_the_way_out(connection: GatewayConnection) -> None:
    error = fails(
        GatewayError, "nowhere", Runner(connection, device="nowhere").run, [Job(BELL, 10)]
    )
    assert (error.index, error.status < 500, bool(error.hint)) == (0, True, True)
    fails(ConfigError, "'devcie'", Runner, connection, devcie="fez")
    chain = (Gate("CNOT", (), (k, k + 1)) for k in range(59))
    turns = (Gate("RX", (0.1 * k,), (k,)) for k in range(60))
    wide = Job(Circuit(60, (H0, *chain, *turns)), 10)
    error = fails(GatewayError, "", Runner(connection, engine="statevector").run, [Job(BELL), wide])
    assert error.index == 1


def test_a_result_that_is_too_large_names_what_makes_it_smaller(
    connection: GatewayConnection,
) -> None:
    wide = Circuit(18, tuple(Gate("H", (), (k,)) for k in range(18)))
    error = fails(GatewayError, "2\\*\\*|outcomes", Runner(connection).run, [Job(wide)])
    assert (error.status, error.hint) == (413, "fewer measured qubits, shots or terms")


def test_a_wrong_token_is_refused_and_not_shown(connection: GatewayConnection) -> None:
    other = GatewayConnection(connection.url, "simenv_wrong_" + "x" * 30)
    error = fails(GatewayError, "", Runner(other).run, [Job(BELL, 10)])
    assert error.status == 401
    assert "wrong" not in repr((str(error), error.args, other))


def test_a_certificate_that_is_not_trusted_is_refused_at_once(
    connection: GatewayConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    fails(NoGatewayError, "is not trusted", GatewayConnection(connection.url, "x").request, "GET",
          "/status")  # fmt: skip


def newer_tasks(client: Client, last: str) -> list[LogRow]:
    """Tasks that were submitted after one. A page may be short."""
    rows, before = client.history.page(1_000)
    while before and all(each.id != last for each in rows):
        more, before = client.history.page(1_000, before)
        rows += more
    return list(itertools.takewhile(lambda each: each.id != last, rows))


def test_jobs_run_once_though_the_gateway_dies_and_comes_back(
    up: Live, connection: GatewayConnection
) -> None:
    long = [Job(Circuit(4, (H0, *(Gate("RX", (0.1 * k,), (k % 4,)) for k in range(1, depth)))), 500)
            for depth in range(20, 60)]  # fmt: skip
    found: list[Result] = []
    runner = Runner(connection, seed=8)
    expected = [probabilities(each) for each in runner.run(long)]
    with up.client() as client:
        last = client.history.page(1)[0][0].id
        thread = threading.Thread(target=lambda: found.extend(runner.run(long)))
        thread.start()
        gateway = config.running_gateway(up.home)
        assert gateway is not None
        os.kill(gateway.pid, signal.SIGKILL)
        thread.join(120)
        assert [probabilities(each) for each in found] == expected
        assert len(newer_tasks(client, last)) == len(long)
