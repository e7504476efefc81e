"""Commands of external simulators: what a pool admits, and what each refusal says."""

from __future__ import annotations

import pytest

from simenv.config.pools import pool_of, pool_text
from simenv.errors import ConfigError

GOOD = "mpirun -n {ranks} nwq_qasm -q {circuit} --shots {shots} --seed {seed}"


def test_a_command_is_a_program_with_placeholders() -> None:
    text = f"nwq:engine=external,workers=2,command={GOOD}"
    assert pool_text(text).command == GOOD
    assert pool_of({"name": "x", "engine": "external", "command": GOOD}, "test").command == GOOD


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"command": ""}, "no command"),
        ({"engine": "statevector"}, "engine=statevector with a command"),
        ({"command": "sim {circuit}"}, "lacks {shots}"),
        ({"command": "sim {shots}"}, "lacks {circuit}"),
        ({"command": "sim {circuit} {shots} {nodes}"}, "has {nodes}"),
        ({"command": "sim {circuit} {shots:d}"}, "has {shots}"),
        ({"command": "sim {circuit.x} {shots}"}, "has {circuit.x}"),
        ({"command": "sim {circuit} {shots} }"}, "brace alone"),
        ({"command": "sim '{circuit} {shots}"}, "cannot be split"),
        ({"command": "{circuit} {shots}"}, "does not begin with a program"),
        ({"command": "   "}, "does not begin with a program"),
        ({"command": "sim\n{circuit} {shots}"}, "printable line"),
        ({"command": "sim {circuit} {shots} " + 3_000 * "x"}, "2048 characters"),
        ({"ranks": 2}, "a command and ranks=2"),
        ({"device": "fez"}, "a command and device=fez"),
    ],
)
def test_a_refusal_names_the_fault(changes: dict[str, object], fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pool_of({"name": "nwq", "engine": "external", "command": GOOD, **changes}, "test")
    assert fault in caught.value.message
    assert caught.value.hint
