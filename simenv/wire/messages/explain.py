"""Explanation of the choice of an engine, before anything runs."""

from __future__ import annotations

import math

import msgspec

from simenv.model import TaskOptions
from simenv.model.logical_use import LogicalUse
from simenv.model.task import LinkUse
from simenv.wire.messages.base import ClientRequest, Number, Reply


class Explain(ClientRequest["Explained"], frozen=True, tag=24):
    """Request the engine that would run a program, with the reason; nothing is run. Answered by
    Explained."""

    terms: TaskOptions
    program: bytes
    shots: Number
    count: Number = 1  # bindings


class Choice(msgspec.Struct, frozen=True, array_like=True):
    """One engine that was considered."""

    engine: str
    chosen: bool
    able: bool  # it could run the program
    why: str  # reason why it was chosen or not
    hint: str  # change that would make it able; "": there is none
    pool: str  # "": no pool can run it
    memory_bytes: int  # of each rank; 0: unknown, because it is not able
    seconds: float  # expected, of all bindings on one slot
    reproducible: bool  # the same bits on every machine and version
    ranks: int = 1
    nodes: int = 1  # nodes of its ranks in an otherwise idle environment
    truncation: float = 0.0  # weight that may be cut off from the state, at most; -1.0: not known
    sampling_error: float = 0.0  # largest standard error of a probability; 0.0: no shots
    runs: int = 0  # number of runs from which the expected time was learned
    off_by: float = 1.0  # typical factor between expected and actual times of such runs
    wait_s: float = -1.0  # until such a task would start if it was accepted now; -1: not known
    wait_off_by: float = 0.0  # typical factor between such waits and real ones; 0: not known
    wait_age_s: float = 0.0  # since the forecast was made


class Sizes(msgspec.Struct, frozen=True, array_like=True):
    """Sizes of the program on which the choice of the engine depends."""

    num_qubits: int
    operations: int
    gates_1q: int
    gates_2q: int
    gates_many: int
    measurements: int
    dynamic: bool  # it measures, resets or branches before its end
    clifford: bool
    bond_bits: int  # at most 2 to this power values cross any cut between its qubits; -1: unknown
    trial_bond: int = 0  # the largest bond in a trial of its gates; 0: there was none
    trial_part: float = 0.0  # of the gates that the trial applied


_MOST_CUTS = 320  # 9^320 is about 1e305


class NoiseFigure(msgspec.Struct, frozen=True, array_like=True):
    """A parameter of pulser's NoiseModel, such as amp_sigma or relaxation_rate."""

    name: str
    value: float


class NoiseUse(msgspec.Struct, frozen=True, array_like=True):
    """The noise of a pulse sequence, or warnings about that of a circuit. `figures`: those that
    act; `uncalibrated`: titles of what its device has no figure of, so that it acts as perfect;
    `warnings`: about factors that do not act as asked, and about fits to other circuits."""

    figures: tuple[NoiseFigure, ...] = ()
    uncalibrated: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Explanation(msgspec.Struct, frozen=True, array_like=True):
    """The engines considered, the chosen one first."""

    sizes: Sizes
    engines: list[Choice]
    # On a device of several QPUs, which the client adds: links with Bell pairs, and the gates
    # between modules, without packets.
    links: tuple[LinkUse, ...] = ()
    remote_gates: int = 0
    logical: LogicalUse | None = None  # of a device of logical qubits; the client adds it
    # Of a pulse sequence, whose own model the client adds, or of a circuit outside a fit.
    noise: NoiseUse | None = None

    @property
    def cutting_overhead(self) -> float:
        """Factor of the shots, about 9^gates, if each gate between modules was cut in place of the
        pairs (Mitarai and Fujii, arXiv 1909.07534); inf: beyond floating-point numbers."""
        return 9.0**self.remote_gates if self.remote_gates < _MOST_CUTS else math.inf

    @property
    def engine(self) -> str:
        """The chosen engine; "" if none can run the program here."""
        return next((each.engine for each in self.engines if each.chosen), "")


class Explained(Reply, frozen=True, tag=24):
    explanation: Explanation
