"""Engine `pauli`: values of the density matrix, and errors that contain the truth."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from arrays import Arrays
from engine_runs import run
from noisy import after_gates, program
from reference import Operation
from scipy.stats import unitary_group

from noise_models import library
from noise_models.channel import (
    Channel,
    Readout,
    depolarizing,
    from_kraus,
    from_paulis,
    from_unitary,
    relaxation,
    tensor,
)
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.densitymatrix.engine import DensityMatrixEngine
from simulators.engine import BindingResult, PauliSum, Request, RunControl
from simulators.errors import Stopped, TruncatedState, Unsupported
from simulators.pauli.engine import PauliEngine
from simulators.statevector.engine import StatevectorEngine
from simulators.strings.certification import targets
from simulators.strings.program import program_of
from simulators.strings.propagation import Cuts, Propagation

GATES = ("h", "s", "sdg", "sx", "t", "x", "y", "z", "id")
ANGLES = {"rx": 1, "ry": 1, "rz": 1, "u": 3, "p": 1, "rzz": 1, "rxx": 1, "ryy": 1, "rzx": 1}
ANGLES |= {"cp": 1, "crx": 1, "cry": 1, "crz": 1, "cu": 4, "xx_plus_yy": 2}
PAIRS = ("cx", "cz", "cy", "ch", "csx", "swap", "iswap", "ecr", "dcx")


def random_circuit(
    num_qubits: int, depth: int, random: np.random.Generator, *, collapses: bool = False
) -> Circuit:
    """Gates of all kinds on random qubits; `collapses`: resets and measurements between them."""
    arrays = Arrays(num_qubits, num_qubits)
    for _ in range(depth):
        a, b = random.permutation(num_qubits)[:2].tolist()
        kind = int(random.integers(6))
        if kind == 0:
            arrays.add(str(random.choice(GATES)), [a])
        elif kind == 1:
            arrays.add(str(random.choice(PAIRS)), [a, b])
        elif kind < 4:
            name = str(random.choice(list(ANGLES)))
            wires = [a] if name in ("rx", "ry", "rz", "u", "p") else [a, b]
            arrays.add(name, wires, (), random.uniform(-4, 4, ANGLES[name]).tolist())
        elif kind == 4:
            wires = [a, b][: 1 + int(random.integers(2))]
            matrix = unitary_group.rvs(2 ** len(wires), random_state=random)
            arrays.unitary(matrix, wires)
        elif collapses:
            if random.random() < 0.5:
                arrays.add("reset", [a])
            else:
                arrays.add("measure", [a], [a])
    return arrays.circuit()


def random_kraus(num_qubits: int, random: np.random.Generator) -> Channel:
    """Any channel: three blocks of an isometry."""
    size = 2**num_qubits
    isometry = unitary_group.rvs(3 * size, random_state=random)[:, :size]
    return from_kraus([isometry[k * size : (k + 1) * size] for k in range(3)])


def random_noise(circuit: Circuit, random: np.random.Generator) -> NoiseProgram:
    """Channels of all kinds after gates, readout errors too."""
    weights = random.random(16) * 0.01
    weights[0] = 1.0 - weights[1:].sum()
    turn = np.diag(np.exp(1j * random.normal(0, 0.1, 4)))
    relaxed = relaxation(300, 4, 5, 0.1)
    on_pair = (
        from_paulis(weights), depolarizing(0.03, 2), from_unitary(turn), random_kraus(2, random),
        tensor(relaxed, relaxation(500, 9, 11)).then(depolarizing(0.02, 2)),
    )  # fmt: skip
    on_one = depolarizing(0.01, 1), relaxed, random_kraus(1, random)

    def rule(row: Operation) -> Sequence[tuple[tuple[int, ...], Channel]]:
        if len(row.qubits) == 2:
            channel = on_pair[int(random.integers(len(on_pair)))]
            return [(row.qubits[:: 1 - 2 * int(random.integers(2))], channel)]
        if len(row.qubits) == 1 and random.random() < 0.5:
            return [(row.qubits, on_one[int(random.integers(len(on_one)))])]
        return []

    width = circuit.num_qubits
    readout = Readout(random.uniform(0, 0.05, width), random.uniform(0, 0.1, width))
    return program(after_gates(circuit, rule), readout)


def expectation(
    engine: object, circuit: Circuit, labels: Sequence[str], noise: NoiseProgram | None, **options
) -> BindingResult:
    observables = tuple(PauliSum((label,), np.ones(1)) for label in labels)
    seed = options.pop("seed", 1)
    request = Request(0, seed, ("expectation",), observables)
    return run(engine, circuit, request, noise, **options).row(0)  # type: ignore[arg-type]


def masks(label: str) -> tuple[int, int]:
    letters = label[::-1]
    return (
        sum(1 << k for k, letter in enumerate(letters) if letter in "XY"),
        sum(1 << k for k, letter in enumerate(letters) if letter in "YZ"),
    )


@pytest.mark.parametrize("seed", range(24))
def test_uncut_values_equal_those_of_the_density_matrix(seed: int) -> None:
    random = np.random.default_rng(seed)
    circuit = random_circuit(5, 30, random, collapses=seed % 3 == 2)
    noise = random_noise(circuit, random) if seed % 4 else None
    labels = ["".join(random.choice(list("IXYZ"), 5)) for _ in range(8)]
    if circuit.clbits_data:  # X and Y on a measured qubit are refused
        labels = [label.translate(str.maketrans("XY", "ZZ")) for label in labels]
    exact = expectation(DensityMatrixEngine(), circuit, labels, noise).expectations
    prepared = program_of(circuit, circuit.params, noise)
    arrays = Propagation(5)
    for label, (value, _) in zip(labels, exact, strict=True):
        found = arrays.run(prepared, *masks(label), Cuts(0.0, 4**5), RunControl())
        assert found.value == pytest.approx(value, abs=1e-12)
        assert found.bound == 0.0


def test_words_beyond_the_first_one() -> None:
    """The same circuit on qubits of three words of a string."""
    places = [3, 63, 64, 127, 140]
    random = np.random.default_rng(3)
    small = random_circuit(5, 40, random)
    arrays = Arrays(150, 0)
    ops = [small.table.names[row] for row in small.ops.tolist()]
    at = param = 0
    for row, name in zip(small.ops.tolist(), ops, strict=True):
        _, count, _, params = small.table.rows[row].tolist()
        wires = [places[q] for q in small.qubits[at : at + count].tolist()]
        values = small.params[param : param + params].tolist()
        if name == "unitary":
            data = small.matrices[small.table.matrix[row]]
            matrix = np.frombuffer(data, np.complex128).reshape(2**count, -1)
            arrays.unitary(matrix, wires)
        else:
            arrays.add(name, wires, (), values)
        at, param = at + count, param + params
    wide = program_of(circuit := arrays.circuit(), circuit.params, None)
    narrow = program_of(small, small.params, None)
    for label in ("XYZZY", "IIZIX", "ZZZZZ"):
        x, z = masks(label)
        far = [sum(1 << places[k] for k in range(5) if mask >> k & 1) for mask in (x, z)]
        one = Propagation(5).run(narrow, x, z, Cuts(0.0, 4**5), RunControl())
        two = Propagation(150).run(wide, *far, Cuts(0.0, 4**5), RunControl())
        assert two.value == pytest.approx(one.value, abs=1e-12)


def cases(first: int, count: int) -> tuple[int, int, list[tuple[int, float, float]]]:
    """Cases whose truth is not within three errors, all values, and the misses."""
    outside, total, misses = 0, 0, []
    for seed in range(first, first + count):
        random = np.random.default_rng([7, seed])
        width = int(random.integers(6, 9))
        circuit = random_circuit(width, int(random.integers(20, 60)), random)
        noise = random_noise(circuit, random) if seed % 2 else None
        labels = ["".join(random.choice(list("IXYZ"), width)) for _ in range(6)]
        exact = expectation(DensityMatrixEngine(), circuit, labels, noise).expectations
        tolerance = float(random.choice([0.03, 0.01]))
        settings = ("tolerance", tolerance), ("strings", 2_000), ("uncertified", 1)
        stated = expectation(PauliEngine(), circuit, labels, noise, settings=settings, seed=seed)
        for (truth, _), (value, error) in zip(exact, stated.expectations, strict=True):
            total += 1
            if abs(value - truth) > 3.0 * error + 1e-12:
                outside += 1
                misses.append((seed, value - truth, error))
    return outside, total, misses


def test_truth_is_within_what_is_stated() -> None:
    outside, total, misses = cases(0, 16)
    assert outside <= 0.01 * total, misses


# Observables of Kim et al., Nature 618, 500 (2023), figures 3 and 4.
_Z62 = {62: "Z"}
_W10 = dict(zip((13, 29, 31, 9, 30, 8, 12, 17, 28, 32), "XXXYYZZZZZ", strict=True))
_W17 = dict(
    zip(
        (37, 41, 52, 56, 57, 58, 62, 79, 75, 38, 40, 42, 63, 72, 80, 90, 91),
        "XXXXXXXXYZZZZZZZZ", strict=True,
    )
)  # fmt: skip
_W17_MORE = {q: "XY Z"[k] for k, qs in enumerate(
    ((37, 41, 52, 56, 57, 58, 62, 79), (38, 40, 42, 63, 72, 80, 90, 91), (), (75,))
) for q in qs}  # fmt: skip


def kicked_ising(angle: float, steps: int, *, turned: bool = False) -> Circuit:
    """Circuit of Kim et al. on the graph of ibm_kyiv; `turned`: with one more layer of rx."""
    snapshot = library.load("kyiv")
    edges = sorted({tuple(sorted(g.qubits)) for g in snapshot.gates if len(g.qubits) == 2})
    arrays = Arrays(snapshot.num_qubits, 0)
    for _ in range(steps):
        for qubit in range(snapshot.num_qubits):
            arrays.add("rx", [qubit], (), [angle])
        for edge in edges:
            arrays.add("rzz", list(edge), (), [-math.pi / 2])
    for qubit in range(snapshot.num_qubits if turned else 0):
        arrays.add("rx", [qubit], (), [angle])
    return arrays.circuit()


@pytest.mark.parametrize(
    ("letters", "steps", "turned", "at_quarter", "at_zero"),
    [
        (_Z62, 20, False, 0.0, 1.0), (_W10, 5, False, 1.0, 0.0), (_W17, 5, False, -1.0, 0.0),
        (_W17_MORE, 5, True, -1.0, 0.0),
    ],
)  # fmt: skip
def test_clifford_points_of_kicked_ising_on_127_qubits_are_exact(
    letters: dict[int, str], steps: int, turned: bool, at_quarter: float, at_zero: float
) -> None:
    label = "".join(letters.get(q, "I") for q in range(127))[::-1]
    for angle, value in ((math.pi / 2, at_quarter), (0.0, at_zero)):
        circuit = kicked_ising(angle, steps, turned=turned)
        result = expectation(PauliEngine(), circuit, [label], None)
        assert result.expectations[0] == (pytest.approx(value, abs=1e-9), 0.0)
        assert result.truncation == 0.0


def scrambled() -> Circuit:
    return random_circuit(8, 80, np.random.default_rng(11))


def test_refusal_at_the_limit_of_strings_has_the_value_so_far() -> None:
    settings = ("tolerance", 1e-4), ("strings", 1_024)
    with pytest.raises(TruncatedState) as refused:
        expectation(PauliEngine(), scrambled(), ["ZZIIXIIZ"], None, settings=settings)
    assert "0.0001" in refused.value.message
    assert "1024 strings: Z0X3Z6Z7: " in refused.value.message
    assert "uncertified=1" in refused.value.hint


def test_uncertified_value_is_called_so_and_has_its_bound() -> None:
    settings = ("tolerance", 1e-4), ("strings", 1_024), ("uncertified", 1)
    result = expectation(PauliEngine(), scrambled(), ["ZZIIXIIZ"], None, settings=settings)
    (value, error), *_ = result.expectations
    assert result.remark.startswith("converged: unknown: Z0X3Z6Z7: ")
    assert result.remark.count(" at ") == 3
    assert error == result.truncation > 0.1
    truth = expectation(StatevectorEngine(), scrambled(), ["ZZIIXIIZ"], None).expectations[0][0]
    assert abs(value - truth) <= error


def product(angle: float, width: int) -> Circuit:
    arrays = Arrays(width, 0)
    for qubit in range(width):
        arrays.add("ry", [qubit], (), [angle])
    return arrays.circuit()


def test_no_string_left_is_no_evidence_of_zero() -> None:
    """X on ten qubits is sin^10 of the angle: all strings are cut, and the value is not 0."""
    circuit = product(0.8, 14)
    settings = ("tolerance", 1e-3), ("strings", 1_024), ("uncertified", 1)
    plain = Propagation(14).run(
        program_of(circuit, circuit.params, None), 2**14 - 1, 0, Cuts(0.05, 1_024), RunControl()
    )
    assert (plain.value, plain.diagonal) == (0.0, 0)
    result = expectation(PauliEngine(), circuit, ["X" * 14], None, settings=settings)
    (value, error), *_ = result.expectations
    assert abs(value - math.sin(0.8) ** 14) <= 3.0 * error
    if "converged: unknown" in result.remark and value == 0.0:
        assert "no contribution" in result.remark


@pytest.mark.parametrize(("angle", "width", "tolerance"), [(1.0, 5, 0.45), (0.3, 4, 0.005)])
def test_runs_that_agree_by_chance_have_an_error(
    angle: float, width: int, tolerance: float
) -> None:
    """A string just below eps is kept as eps in nearly all runs, and a small one in none."""
    outside = 0
    for seed in range(200):
        result = expectation(
            PauliEngine(), product(angle, width), ["X" * width], None, seed=seed,
            settings=(("tolerance", tolerance),),
        )  # fmt: skip
        (value, error), *_ = result.expectations
        outside += abs(value - math.sin(angle) ** width) > 3.0 * error + 1e-12
    assert outside <= 2


def test_ghz_state_and_its_parity() -> None:
    """Each half of the state has half of each value, and only the parity tells their phase."""
    arrays = Arrays(100, 0).add("h", [0])
    for qubit in range(99):
        arrays.add("cx", [qubit, qubit + 1])
    arrays.add("rz", [50], (), [0.4])
    labels = ["X" * 100, "Z" + "I" * 98 + "Z", "I" * 99 + "Z", "Y" + "X" * 99]
    result = expectation(PauliEngine(), arrays.circuit(), labels, None)
    values = [value for value, _ in result.expectations]
    assert values == pytest.approx([math.cos(0.4), 1.0, 0.0, math.sin(0.4)], abs=1e-12)


def test_values_do_not_depend_on_threads() -> None:
    random = np.random.default_rng(5)
    circuit = random_circuit(6, 40, random)
    noise = random_noise(circuit, random)
    labels = ["".join(random.choice(list("IXYZ"), 6)) for _ in range(9)]
    settings = (("tolerance", 0.03),)
    one, three = (
        expectation(PauliEngine(), circuit, labels, noise, settings=settings, threads=threads)
        for threads in (1, 3)
    )
    assert one == three


def test_error_of_a_sum_is_within_the_tolerance_of_its_weights() -> None:
    """Standard errors of strings add by their squares, so each may have more than the tolerance."""
    random = np.random.default_rng(6)
    circuit = random_circuit(6, 40, random)
    noise = random_noise(circuit, random)
    labels = ["".join(random.choice(list("IXYZ"), 6)) for _ in range(30)]
    weights = random.uniform(-2, 2, 31)
    observables = (PauliSum((*labels, "IIIIII"), weights), PauliSum((labels[0],), np.ones(1)))
    request = Request(0, 1, ("expectation",), observables)
    settings = {"settings": (("tolerance", 0.01),)}
    total, one = run(PauliEngine(), circuit, request, noise, **settings).row(0).expectations
    exact = run(DensityMatrixEngine(), circuit, request, noise).row(0).expectations
    assert total[1] <= 0.01 * np.abs(weights[:30]).sum()
    assert one[1] <= 0.01
    wanted = targets(labels, np.zeros(30, np.int64), weights[:30], 0.01)
    assert all(each.error > 0.01 > each.bound for each in wanted.values())
    for (value, error), (truth, _) in zip((total, one), exact, strict=True):
        assert abs(value - truth) <= 3.0 * error


def test_bindings_have_values_of_their_own() -> None:
    arrays = Arrays(2, 0).add("ry", [0], (), [0.0])
    arrays.free(0)
    circuit = arrays.add("cx", [0, 1]).circuit()
    angles = np.array([[0.3], [1.1]])
    observables = (PauliSum(("ZI",), np.ones(1)), PauliSum(("IX",), np.ones(1)))
    request = Request(0, 1, ("expectation",), observables, angles)
    result = run(PauliEngine(), circuit, request)
    values = np.frombuffer(result.expectations).reshape(2, 2, 2)[..., 0]
    assert values == pytest.approx(np.column_stack((np.cos(angles), 0 * angles)), abs=1e-12)


def test_shots_add_their_error() -> None:
    request = Request(10_000, 1, ("expectation",), (PauliSum(("Z",), np.ones(1)),))
    ((value, error),) = run(PauliEngine(), product(1.0, 1), request).row(0).expectations
    assert error == pytest.approx(math.sin(1.0) / 100, rel=0.02)
    assert 0 < abs(value - math.cos(1.0)) < 5 * error


def test_conditions_are_refused() -> None:
    arrays = Arrays(2, 2).add("measure", [0], [0])
    arrays.begin((1, 0, 0)).add("x", [1]).add("end")
    with pytest.raises(Unsupported, match="conditions"):
        expectation(PauliEngine(), arrays.circuit(), ["ZI"], None)


def test_stop_ends_a_run() -> None:
    control = RunControl()
    control.stop()
    request = Request(0, 1, ("expectation",), (PauliSum(("Z" * 8,), np.ones(1)),))
    with pytest.raises(Stopped):
        run(PauliEngine(), scrambled(), request, None, control)
