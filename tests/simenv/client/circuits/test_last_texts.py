"""A text that was just parsed is not parsed again; what is kept of texts is bounded."""

from collections.abc import Iterator
from importlib import import_module

import pytest
from failing import fails

from simenv.client.circuits import load as load_circuit
from simenv.errors import ProgramError

module = import_module("simenv.client.circuits.load")  # the package has a function of that name
HEAD = 'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[2];\ncreg c[2];\n'


@pytest.fixture(autouse=True)
def empty() -> Iterator[None]:
    module._LAST_TEXTS.clear()
    yield
    module._LAST_TEXTS.clear()


def text(number: int) -> str:
    return f"{HEAD}rx({number}) q[0];\nmeasure q -> c;\n"


def test_texts_are_parsed_once_and_wrong_ones_refused_each_time() -> None:
    first = load_circuit(text(1))
    assert load_circuit("".join(["", text(1)])) is first
    assert load_circuit(text(2)).packed != first.packed
    for _ in range(2):
        fails(ProgramError, "nothing", load_circuit, f"{HEAD}nothing;\n")
    assert set(module._LAST_TEXTS) == {text(1), text(2)}


def test_kept_texts_are_bounded_in_number_and_size() -> None:
    for number in range(3 * module.CACHED_TEXTS):
        load_circuit(text(number))
        assert len(module._LAST_TEXTS) <= module.CACHED_TEXTS
    long = f"{text(0)}//{'a' * module.CACHED_TEXT_BYTES}\n"
    load_circuit(long)
    assert long not in module._LAST_TEXTS
