"""Plain values of circuits, jobs and results, as myQLM defines them.

Conventions of myQLM (https://myqlm.github.io): qubit 0 is the most significant bit of a state;
the state of a job that measures some qubits has one bit for each, in the order of the job's list;
controls come first among the qubits of a gate, and its name has `C-` for each, `D-` for a dagger.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

Matrix = tuple[tuple[complex, ...], ...]


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate. `params`: angles in radians, or the name of a free parameter, which is refused.
    `matrix`: of the gate without the controls that `name` has, row by row, first qubit most
    significant; None: by its name. `controls`: classical bits that must all be 1. `formula`: in
    their place, see `Logic`."""

    name: str
    params: tuple[float | str, ...]
    qubits: tuple[int, ...]
    matrix: Matrix | None = None
    controls: tuple[int, ...] = ()
    formula: str = ""


@dataclass(frozen=True, slots=True)
class Measure:
    """Measurement of qubits into classical bits inside the circuit."""

    qubits: tuple[int, ...]
    cbits: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reset:
    """Reset of qubits to 0; `cbits` are set to 0. myQLM reports what they were."""

    qubits: tuple[int, ...]
    cbits: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Logic:
    """A classical bit becomes the value of a formula: indices of classical bits, AND, OR, XOR and
    NOT in prefix notation, such as `AND 0 NOT 1`."""

    formula: str
    cbit: int


@dataclass(frozen=True, slots=True)
class Break:
    """The run ends with an error if a formula is true."""

    formula: str


Instruction = Gate | Measure | Reset | Logic | Break


@dataclass(frozen=True, slots=True)
class Circuit:
    """Instructions in order; their indices are the `gate_pos` of intermediate measurements."""

    num_qubits: int
    instructions: tuple[Instruction, ...]


@dataclass(frozen=True, slots=True)
class Term:
    """A product of Pauli operators: letter k of `paulis` acts on qubit k of `qubits`."""

    coefficient: complex
    paulis: str
    qubits: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Observable:
    """A sum of terms and a constant."""

    terms: tuple[Term, ...]
    constant: complex = 0.0


@dataclass(frozen=True, slots=True)
class Job:
    """What a job asks of a circuit: samples of some qubits (None: all), or the mean of an
    observable. `shots` 0: exact. `aggregate` False: one sample for each shot, in order.
    `amp_threshold`, `threshold`: exact states, and aggregated ones, are left out up to an
    amplitude and below a probability."""

    circuit: Circuit
    shots: int = 0
    qubits: tuple[int, ...] | None = None
    observable: Observable | None = None
    aggregate: bool = True
    amp_threshold: float = 0.0
    threshold: float = 0.0


@dataclass(frozen=True, slots=True)
class PulseJob:
    """A pulse sequence of neutral atoms. `sequence`: the text of pulser's `to_abstract_repr()`.
    `shots` 0: exact. `modulation`: channels have their bandwidth."""

    sequence: str
    shots: int = 0
    modulation: bool = False


class IntermediateMeasurement(NamedTuple):
    """Outcomes of one instruction; `probability` None: the gateway does not tell it."""

    gate_pos: int
    cbits: tuple[bool, ...]
    probability: float | None = None


class Sample(NamedTuple):
    """A state with its probability and the standard error of that; both are None where they are not
    known, and so is the amplitude."""

    state: int
    probability: float | None = None
    err: float | None = None
    amplitude: complex | None = None
    intermediate_measurements: tuple[IntermediateMeasurement, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """Samples, or the value of an observable with its standard error. `meta_data`: task, seed,
    engine, device and others as text."""

    samples: tuple[Sample, ...] = ()
    value: float | None = None
    error: float | None = None
    meta_data: dict[str, str] = field(default_factory=dict)
