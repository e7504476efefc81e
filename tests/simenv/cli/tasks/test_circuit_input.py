"""Circuits on the command line, and their amplitudes."""

import math
from pathlib import Path

import pytest
from failing import fails
from live import Live
from shell import Shell

from simenv.cli.tasks import circuit_input
from simenv.errors import NotReservedError, OptionError
from simenv.model import pulses
from simenv.model.task_rules import OUTPUTS

BELL = str(Path(__file__).parents[4] / "examples" / "bell.qasm")


@pytest.mark.parametrize(("text", "shots"), [("1e3", 1000), ("64", 64), ("2.5e2", 250)])
def test_shots_are_read_in_scientific_notation(shell: Shell, text: str, shots: int) -> None:
    result = shell("submit", BELL, "--shots", text, "--wait", "--json", code=0)
    assert result.object["shots"] == sum(result.object["counts"].values()) == shots


@pytest.mark.parametrize("text", ["1.5", "-1", "many", "1e999", "nan", ""])
def test_shots_that_are_not_integer_are_refused(shell: Shell, text: str) -> None:
    result = shell("submit", BELL, "--shots", text, "--wait", code=2)
    assert "--shots" in result.err
    assert "such as 1024 or 1e6" in result.err


@pytest.mark.parametrize("command", [("submit", "--wait"), ("simulate",), ("explain",)])
@pytest.mark.parametrize(
    ("mapping", "texts"),
    [
        ("5,x", ["--qubit-mapping '5,x'", "such as 5,4,3"]),
        ("", ["--qubit-mapping ''", "such as 5,4,3"]),
        ("5,5", ["--qubit-mapping 5,5", "each qubit of the device once"]),
        ("-1,2", ["--qubit-mapping -1", "a whole number from 0"]),
        ("5", ["--qubit-mapping 5 for 2 qubits", "one qubit of the 27 of device superconduct"]),
        ("5,99", ["--qubit-mapping 5,99 for 2 qubits", "one qubit of the 27 of device supercond"]),
    ],
)
def test_bad_layout(shell: Shell, command: tuple[str, ...], mapping: str, texts: list[str]) -> None:
    for mode in ("auto", "always", "never"):
        words = [*command, BELL, "--device", "superconducting-lattice", "--compile", mode]
        result = shell(*words, "--qubit-mapping", mapping, code=2)
        assert all(text in " ".join(result.err.split()) for text in texts), result.err


@pytest.mark.parametrize("command", [("submit", "--wait"), ("simulate",)])
def test_qubit_mapping_is_the_initial_layout(shell: Shell, command: tuple[str, ...]) -> None:
    words = [*command, BELL, "--device", "superconducting-lattice", "--qubit-mapping", "7,6"]
    assert shell(*words, "--json", code=0).object["initial_layout"] == [7, 6]


def test_qubit_mapping_needs_an_emulated_device(shell: Shell) -> None:
    result = shell("simulate", BELL, "--qubit-mapping", "7,6")
    assert "--qubit-mapping needs an emulated device" in result.err
    assert "--device NAME" in result.err
    assert "leave --qubit-mapping out" in result.err
    result = shell("explain", BELL, "--plan", "--qubit-mapping", "7,6", "--compile", "always")
    assert "--plan and --compile, --qubit-mapping" in result.err


@pytest.mark.parametrize(
    ("noise", "texts"),
    [
        ("", ["--noise ''", "COMPONENT=FACTOR"]),
        ("gate=1,gate=2", ["'gate' is given twice"]),
        ("recipe=", ["'recipe=' is not COMPONENT=FACTOR"]),
        ("gate.depolarizing", ["unknown noise 'gate.depolarizing'", "factors of components"]),
        ("OFF", ["unknown noise 'OFF'", "on, off, a recipe (simenv, aer, aer-properties)"]),
        ("idle=2", ["noise option idle = 2.0", "True or False"]),
    ],
)
def test_wrong_noise_is_refused_by_name(shell: Shell, noise: str, texts: list[str]) -> None:
    result = shell("simulate", BELL, "--device", "superconducting-lattice", "--noise", noise)
    assert result.code == 2
    assert all(text in result.err for text in texts), result.err


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (["--device", ""], ["--device ''", "a-z, then up to 63"]),
        (
            ["--device", "trapped-ions", "--prefer", "emulator"],
            ["--prefer", "--device trapped-ions"],
        ),
        (["--device", "trapped-ions", "--compile", "never"], ["--compile auto compiles for them"]),
    ],
)
def test_refusals_name_line_options(shell: Shell, words: list[str], texts: list[str]) -> None:
    result = shell("submit", BELL, *words)
    assert result.code in (2, 3)
    assert all(text in result.err for text in texts), result.err


HEAD = 'OPENQASM 2.0; include "qelib1.inc";\n'


@pytest.fixture
def bell(tmp_path: Path) -> str:
    file = tmp_path / "bell.qasm"
    file.write_text(f"{HEAD}qreg q[3]; h q[0]; cx q[0],q[2]; z q[2];\n")
    return str(file)


@pytest.mark.parametrize("command", ["submit", "simulate"])
def test_amplitudes_are_printed_in_their_order(shell: Shell, bell: str, command: str) -> None:
    words = ["--amplitude", "101", "--amplitude", "000", "--amplitude", "111"]
    words += ["--wait"] if command == "submit" else []
    result = shell(command, bell, *words, code=0)
    lines = result.out.splitlines()
    assert [line.partition(" = ")[0] for line in lines] == ["101", "000", "111"]
    assert lines[0].startswith("101 = -0.707106781187 ")
    printed = shell(command, bell, *words, "--json").object
    assert list(printed["amplitudes"]) == ["101", "000", "111"]
    assert printed["amplitudes"]["101"] == pytest.approx([-(0.5**0.5), 0.0])
    assert printed["counts"] is None


def test_every_output_has_its_word(shell: Shell, bell: str) -> None:
    assert set(map(str, circuit_input.Output)) == {*OUTPUTS, *pulses.OUTPUTS}
    words = ["--output", "amplitudes", "--amplitude", "101"]
    printed = shell("simulate", bell, *words, "--json", code=0).object
    assert list(printed["amplitudes"]) == ["101"]


def test_explain_considers_engines_with_amplitudes(shell: Shell, bell: str) -> None:
    rows = shell("explain", bell, "--amplitude", "101", "--json").object
    assert rows["engine"] == "statevector"
    others = {each["engine"]: each["why"] for each in rows["engines"]}
    assert "no output 'amplitudes'" in others["stabilizer"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--amplitude", "10"), "'10' has 2 bits, the circuit 3"),
        (("--amplitude", "1 0"), "'1 0' is not made of 0 and 1"),
        (("--amplitude", "101", "--amplitude", "101"), "'101' is there twice"),
        (("--output", "amplitudes"), "bit strings go together; only one was given"),
    ],
)
def test_bad_strings_are_named(shell: Shell, bell: str, words: tuple[str, ...], text: str) -> None:
    assert text in shell("submit", bell, *words, code=2).err


def test_key_names_one_task_and_runs_under_a_reservation(
    environment: Live, shell: Shell, bell: str
) -> None:
    with environment.client() as client, client.reserve("main") as mine:
        words = ("submit", bell, "--shots", "0", "--output", "probabilities", "--idempotency-key")
        under = (*words, "typed", "--reservation", str(mine.id), "--json")
        first, again = shell(*under), shell(*under)
        assert first.object == again.object, first.err
    late = shell(*words, "late", "--reservation", str(mine.id))
    assert late.code == NotReservedError.exit_code, late.err


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.25", 0.25), ("-1e-3", -1e-3), ("pi/2", math.pi / 2), ("-3*pi/4", -3 * math.pi / 4)],
)
def test_a_parameter_may_be_a_multiple_of_pi(text: str, value: float) -> None:
    assert circuit_input.bindings_of([f"theta={text}", "b=1"]) == {"theta": [value], "b": [1.0]}
    assert circuit_input.bindings_of([]) is None


@pytest.mark.parametrize(
    "text", ["theta=", "theta=pie", "=1", "theta", "theta=pi/0", "theta=exit()", "theta=1=2"]
)
def test_what_is_no_angle_is_refused_with_an_example(text: str) -> None:
    assert "pi/4" in fails(OptionError, text, circuit_input.bindings_of, [text]).hint
