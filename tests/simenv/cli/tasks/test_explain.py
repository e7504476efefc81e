"""`simenv explain`, and options of engines from the command line to the result."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from circuits import tangled
from engines import present
from qiskit import qasm2
from shell import Shell

from simenv import config
from simenv.cli.tasks import explain
from simenv.wire.messages.explain import Choice
from simulators.compiler import folder

HEAD = 'OPENQASM 2.0; include "qelib1.inc";\n'
MPS = pytest.mark.skipif(not present("mps"), reason="numba is not installed")


def chain(width: int, more: str = "") -> str:
    pairs = "".join(f"cx q[{k}],q[{k + 1}];\n" for k in range(width - 1))
    return f"{HEAD}qreg q[{width}]; creg c[{width}];\nh q[0];\n{pairs}{more}measure q -> c;\n"


@pytest.fixture
def wide(tmp_path: Path) -> str:
    file = tmp_path / "wide.qasm"
    file.write_text(chain(60, "t q[3];\n"))
    return str(file)


@MPS
def test_explain_lists_each_engine_with_its_reason(shell: Shell, wide: str) -> None:
    result = shell("explain", wide, code=0)
    advice, first, header, *rows = result.out.splitlines()
    assert advice.startswith(f"run it: simenv run {wide}   (engine mps, about ")
    assert "60 qubits, 61 gates (59 on several qubits), 60 measurements, bonds up to 2^1" in first
    assert header.split() == ["ENGINE", "TAKEN", "TIME", "MEMORY", "ERROR", "WHY"]
    taken = dict(row.split()[:2] for row in rows)
    assert rows[0].split()[:2] == ["mps", "yes"]
    able = {engine for engine, word in taken.items() if word == "able"}
    assert able - {"quimb"} == {"sweep", "peps", "dmt"}
    assert taken.keys() - able - {"mps"} == {
        "stabilizer", "near_clifford", "statevector", "contraction", "pauli", "densitymatrix",
        "aer",
    }  # fmt: skip
    (stabilizer,) = (row for row in rows if row.startswith("stabilizer"))
    assert rows[0].split()[6] == "<6e-13"  # 59 splits that may lose 1e-14 each
    assert "a probability has a standard error of up to 0.016" in result.err
    assert "at most 2^1 values cross any cut" in rows[0]
    assert "runs Clifford circuits, and this program has 1 other gate" in stabilizer
    assert "2^0.2 terms" in stabilizer
    assert "the widest program that fits" in result.err
    assert "a new task in pool main would start at once" in result.err


@MPS
def test_explained_engine_and_reason_are_those_of_run(shell: Shell, wide: str) -> None:
    outcome = shell("explain", wide, "--shots", "5", "--json").object
    assert outcome["engine"] == "mps"
    assert outcome["program"]["clifford"] is False
    engines = {each["engine"]: each for each in outcome["engines"]}
    automatic = {"mps", "statevector", "stabilizer", "contraction", "sweep", "pauli"}
    automatic.add("near_clifford")
    assert set(engines) - {"quimb", "peps", "dmt"} == automatic | {"densitymatrix", "aer"}
    assert engines["mps"]["sampling_error"] == pytest.approx(0.5 / 5**0.5)
    assert engines["mps"]["chosen"]
    assert engines["mps"]["memory_bytes"] > 0
    assert engines["mps"]["seconds"] > 0
    assert not engines["statevector"]["able"]
    ran = shell(
        "submit", wide, "--shots", "5", "--engine-option", "bond=4", "--wait", "--json"
    ).object
    assert (ran["route"], ran["options"]) == (engines["mps"]["why"], {"bond": 4})
    assert set(ran["counts"]) <= {"0" * 60, "1" * 60}
    assert "approximate" not in shell("submit", wide, "--wait").err
    cut = shell("submit", wide, "--engine", "mps", "--engine-option", "bond=1", "--wait")
    assert "approximate: truncation" in cut.err


def test_explain_of_circuit_no_engine_can_run_chooses_none(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "tangle.qasm"
    file.write_text(qasm2.dumps(tangled()))
    result = shell("explain", str(file), "--json")
    assert (result.code, result.object["engine"]) == (0, "")
    able = {each["engine"] for each in result.object["engines"] if each["able"]}
    assert able <= {
        "quimb",
        "peps",
        "dmt",
    }  # which cut off weight as they must, and auto never takes
    result = shell("explain", str(file))
    first, *_ = result.out.splitlines()
    assert first.startswith("this request would be refused; ")
    assert all(f"--engine {engine} (about " in first for engine in able)
    read = result.err
    assert "mps: --engine mps" in read
    assert all(f"{engine}: --engine {engine}" in read for engine in able)
    named = shell("explain", str(file), "--engine", "aer", "--json").object
    assert [each["engine"] for each in named["engines"]] == ["aer"]


def test_explain_refuses_bad_arguments(shell: Shell, tmp_path: Path, wide: str) -> None:
    bad = tmp_path / "bad.qasm"
    bad.write_text(HEAD + "qreg q[1];\nnonsense q[0];\n")
    assert shell("explain", str(bad)).code == 2
    assert "NAME=VALUE" in shell("explain", wide, "--engine-option", "bond", code=2).err
    unknown = shell("submit", wide, "--engine-option", "bnd=3", code=2)
    assert "no engine has an option 'bnd'" in unknown.err
    assert "bond" in unknown.err
    assert shell("explain", wide, "--engine", "stabiliser").code == 2


def test_plan_lists_every_pass_with_memory_and_operations(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "long.qasm"
    file.write_text(chain(20, "rx(0.3) q[4];\n"))
    objects = shell("explain", str(file), "--plan", "--json").objects
    assert [each["number"] for each in objects] == list(range(len(objects)))
    assert all(each["wires"].startswith("0-") for each in objects)
    assert sum("map" in each["operations"] for each in objects) == len(objects) > 1
    assert (objects[0]["memory_bytes"], objects[-1]["memory_bytes"]) == (32 << 14, 32 << 20)
    result = shell("explain", str(file), "--plan", "--precision", "single", code=0)
    first, header, *rows = result.out.splitlines()
    assert f"{len(rows)} passes over" in first
    assert header.split() == ["PASS", "QUBITS", "OPERATIONS", "BYTES", "TIMES", "INSIDE"]
    assert all(row.split()[-2:] == ["1", "-"] for row in rows)


LOOPS = """OPENQASM 3; include "stdgates.inc";
qubit[14] q; bit[14] c;
h q[0]; CHAIN
for uint i in [1:7] {
  rx(0.3) q[13];
  for uint j in [1:3] { ry(0.2) q[12]; c[1] = measure q[12]; if (c[1]) { continue; } ry(0.2) q[9]; }
}
c[0] = measure q[0];
while (c[0]) { rx(0.3) q[0]; if (c[1]) { h q[11]; } c[0] = measure q[0]; }
c = measure q;
""".replace("CHAIN", " ".join(f"cx q[{k}],q[{k + 1}];" for k in range(13)))


def test_plan_multiplies_passes_of_loops_by_iteration_count(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "loops.qasm"
    file.write_text(LOOPS)
    objects = shell("explain", str(file), "--plan", "--json").objects
    assert [(each["times"], each["under"]) for each in objects] == [
        (1, ""), (1, ""), (7, ""), (21, "break"), (21, "break"), (1, "while"),
        (1, "while, if"),
    ]  # fmt: skip
    result = shell("explain", str(file), "--plan")
    assert result.out.startswith(f"{file}: 53 passes over ")
    assert "number of executions" in result.err


def test_plan_lists_unitary_matrix_as_pass(shell: Shell, tmp_path: Path) -> None:
    pytest.importorskip("qiskit")
    from qiskit import QuantumCircuit, qpy
    from qiskit.quantum_info import random_unitary

    circuit = QuantumCircuit(14)
    circuit.h(range(14))
    for k in range(13):
        circuit.cx(k, k + 1)
    circuit.unitary(random_unitary(16, seed=1), [13, 0, 5, 4])
    circuit.measure_all()
    file = tmp_path / "matrix.qpy"
    with file.open("wb") as out:
        qpy.dump(circuit, out)
    last = shell("explain", str(file), "--plan", "--json").objects[-1]
    assert (last["wires"], last["operations"]) == ("0,4-5,13", "matrix of 4 qubits")
    assert last["memory_bytes"] == 32 << 14


@pytest.mark.parametrize(
    "told", [["--shots", "10"], ["--ranks", "2", "--pool", "a"], ["--prefer", "hardware"],
             ["--engine-option", "bond=3"], ["--engine", "mps"], ["--amplitude", "1" * 60]],
    ids=" ".join,
)  # fmt: skip
def test_plan_refuses_options_that_do_not_apply(shell: Shell, wide: str, told: list[str]) -> None:
    result = shell("explain", wide, "--plan", *told, code=2)
    named = sorted(word for word in told if word.startswith("--"))
    assert f"--plan and {', '.join(named)}" in result.err


def test_plan_of_probabilities_equals_plan_of_counts(shell: Shell, tmp_path: Path) -> None:
    """What a measurement does not see is left out of both, and not of a state's."""
    file = tmp_path / "phases.qasm"
    file.write_text(chain(15, "cz q[0],q[14]; t q;\n"))
    plans = [
        shell("explain", str(file), "--plan", "--engine", "statevector", "--output", each).out
        for each in ("counts", "probabilities", "expectation")
    ]
    assert plans[0] == plans[1] != plans[2]


def test_plan_shows_light_cones(shell: Shell, tmp_path: Path) -> None:
    layers = "".join(
        f"rx(0.{k}) q;\n" + "".join(f"cz q[{q}],q[{q + 1}];" for q in range(59)) for k in (1, 2)
    )
    head = f"{HEAD}qreg q[60]; creg c[9];\n{layers}\n"
    near, apart = tmp_path / "near.qasm", tmp_path / "apart.qasm"
    near.write_text(f"{head}h q;\nmeasure q[30] -> c[0];\n")
    result = shell("explain", str(near), "--plan", code=0)
    assert "kept 5 of 60 qubits, 16 of 299 operations" in result.out.splitlines()[1]
    assert result.out.splitlines()[3].split() == [
        "0", "28-32", "all", "of", "a", "small", "state's", "1.0", "KiB", "1", "-",
    ]  # fmt: skip
    bits = "".join(f"measure q[{q}] -> c[{k}];" for k, q in enumerate((3, 7, 11, 40, 44, 48, 52)))
    apart.write_text(f"{head}h q;\n{bits}\n")
    result = shell("explain", str(apart), "--plan", "--json").objects
    assert {each["wires"] for each in result} >= {"1-10", "38-51"}
    assert max(each["memory_bytes"] for each in result) <= 32 << 17
    label = "I" * 30 + "Z" + "I" * 29
    result = shell("explain", str(near), "--plan", "--observable", label)
    assert "kept 5 of 60 qubits" in result.out
    assert "60 qubits" in shell("explain", str(near), "--plan", "--output", "expectation").err
    assert shell("explain", str(apart), "--json").object["engine"] == "statevector"
    ran = shell("submit", str(apart), "--shots", "100", "--wait", "--json").object
    assert "of 60 qubits at once are needed" in ran["route"]
    assert sum(ran["counts"].values()) == 100


def test_plan_is_refused_for_small_circuits(shell: Shell, wide: str, tmp_path: Path) -> None:
    result = shell("explain", wide, "--plan")
    assert result.code
    assert "60 qubits; the engine statevector takes 50" in result.err
    small = tmp_path / "small.qasm"
    small.write_text(chain(3))
    assert "need no plan" in shell("explain", str(small), "--plan").err
    small.write_text(chain(14, ""))
    assert "up to 14 qubits" in shell("explain", str(small), "--plan").err
    assert shell("explain", str(small), "--plan", "--output", "probabilities").code == 0


def test_explained_start_has_its_typical_error() -> None:
    row = Choice("mps", True, True, "", "", "main", 0, 1.0, True)
    waits = {0.2: "at once", 40.0: "in about 40 s", 600.0: "in about 10 min"}
    for wait_s, words in waits.items():
        text = explain.starts(msgspec.structs.replace(row, wait_s=wait_s))
        assert text == f"a new task in pool main would start {words}"
    text = explain.starts(msgspec.structs.replace(row, wait_s=40.0, wait_off_by=1.6123))
    assert text.endswith("in about 40 s, typically within a factor of 1.6")


@MPS
def test_an_unchosen_engine_has_the_error_that_it_has_if_asked_for(
    shell: Shell, tmp_path: Path
) -> None:
    """Its bonds grow beyond its option, which a trial of a part of the gates does not reach."""
    random = np.random.default_rng(1)
    lines = [f"{HEAD}qreg q[28]; creg c[28];"]
    for layer in range(20):
        for qubit in range(28):
            angles = ", ".join(f"{angle:.4f}" for angle in random.uniform(0, [3, 3, 1]))
            lines.append(f"u3({angles}) q[{qubit}];")
        lines += [f"cx q[{k}], q[{k + 1}];" for k in range(layer % 2, 27, 2)]
    file = tmp_path / "deep.qasm"
    file.write_text("\n".join([*lines, "measure q -> c;"]))
    outcome = shell("explain", str(file), "--json").object
    (row,) = (each for each in outcome["engines"] if each["engine"] == "mps")
    assert (row["able"], row["chosen"], row["truncation"]) == (True, False, -1.0)
    assert "asked for by name, it may cut off any part of the state" in row["why"]
    named = shell("explain", str(file), "--engine", "mps", "--json").object["engines"][0]
    assert named["truncation"] == row["truncation"]


BELL = str(Path(__file__).parents[4] / "examples" / "bell.qasm")
ON = ("--device", "superconducting-lattice")


def test_ledger_names_components_gates_and_qubits_unless_off(shell: Shell) -> None:
    output = shell("explain", BELL, *ON, "--ledger").out
    assert "fidelity about 0.9" in output
    for word in ("gate.depolarizing", "qubit.readout", "cz    0-1", "no pair of qubits stands out"):
        assert word in output
    factors = ("--noise", "qubit=0,gate.crosstalk=0")
    outcome = shell("explain", BELL, *ON, "--ledger", *factors, "--json").object
    assert set(outcome["components"]) == {"gate.depolarizing", "gate.coherent"}


def test_noise_with_a_file_in_place_of_the_circuit_is_the_ledger(shell: Shell) -> None:
    outcome = shell("explain", "--noise", BELL, *ON, "--json").object
    assert outcome == shell("explain", BELL, *ON, "--ledger", "--json").object
    assert outcome["loss"] == pytest.approx(sum(outcome["components"].values()))
    assert outcome["edges"][0]["qubits"] == [0, 1]


def test_plot_is_a_png(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "ledger.png"
    shell("explain", BELL, *ON, "--ledger", "--plot", str(path))
    assert path.read_bytes().startswith(b"\x89PNG")


def test_kernels_are_kept_in_their_folder(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "_chosen", [])
    assert shell("explain", BELL, *ON, "--ledger").code == 0
    assert folder.chosen() == config.kernel_folder()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((BELL, "--ledger"), "--ledger without --device"),
        ((), "no circuit"),
        ((BELL, *ON, "--ledger", "--shots", "5"), "--ledger and --shots"),
        ((BELL, *ON, "--plot", "a.png"), "--plot without --ledger"),
        ((BELL, *ON, "--ledger", "--plan"), "--plan and --ledger"),
        (("--noise", BELL, *ON, "--plan"), "--plan and --noise FILE"),
        ((BELL, *ON, "--ledger", "--noise", "off"), "no noise acts"),
        ((BELL, *ON, "--ledger", "--plot", "a.nothing"), "--plot a.nothing"),
    ],
)
def test_refusals_name_the_option(shell: Shell, arguments: tuple[str, ...], words: str) -> None:
    result = shell("explain", *arguments)
    assert result.code != 0
    assert words in result.err
