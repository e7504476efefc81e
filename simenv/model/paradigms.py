"""Paradigms of programs: the formats of each, and the refusal of annealing.

Circuits of gates and pulse sequences on neutral atoms are programs here. Problems of annealing are
refused by name wherever a program comes in, with one message: a classical sampler solves them in
the caller's process, so an emulated annealer would add a queue and no physics.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from simenv.errors import ProgramError

GATE, ANALOG, ANNEALING = "gate", "analog", "annealing"
CIRCUIT_FORMATS = ("openqasm2", "openqasm3", "qpy")
PULSER = "pulser-abstract"  # the text of `Sequence.to_abstract_repr()` of pulser-core
FORMATS = {GATE: CIRCUIT_FORMATS, ANALOG: (PULSER,), ANNEALING: ()}
# Names of formats that hosts and HTTP clients may give to a problem of annealing.
ANNEALING_FORMATS = ("annealing", "bqm", "cqm", "dimod", "dqm", "ising", "ocean", "qubo")
ANNEALING_REASON = (
    "annealing is not emulated: a classical sampler solves such a problem in milliseconds, and a"
    " pool would add a queue and no physics"
)
ANNEALING_HINT = (
    "call a sampler of dwave-samplers in your own process:"
    " dwave.samplers.SimulatedAnnealingSampler().sample(bqm)"
)


def paradigms_of(formats: Iterable[str]) -> list[str]:
    """Return the paradigms that have one of these formats, in the order of FORMATS."""
    present = set(formats)
    return [name for name, own in FORMATS.items() if not present.isdisjoint(own)]


def is_annealing(program: Any) -> bool:
    """Return whether an object is a model or a sampler of D-Wave's Ocean packages, or a model of
    pyqubo. Circuits of `dwave.gate` are none."""
    modules = [kind.__module__ for kind in type(program).__mro__]
    roots = {name.partition(".")[0] for name in modules if not name.startswith("dwave.gate")}
    return not roots.isdisjoint(("dimod", "dwave", "pyqubo", "cpp_pyqubo"))


def is_annealing_text(text: str) -> bool:
    """Return whether a text in JSON is a model of dimod, as its `to_serializable` writes it."""
    return any(f'"{name}QuadraticModel"' in text for name in ("Binary", "Constrained", "Discrete"))


def is_annealing_format(name: Any) -> bool:
    """Return whether the name of a format means problems of annealing."""
    return isinstance(name, str) and name.lower() in ANNEALING_FORMATS


def annealing_refused(what: str) -> ProgramError:
    """Return the error of a problem of annealing. `what`: the object or format, for the message."""
    return ProgramError(f"{what}: {ANNEALING_REASON}", hint=ANNEALING_HINT)
