"""Checks of tasks whose programs run in parts: see `TaskParts`."""

from __future__ import annotations

import msgspec

from simenv.errors import OptionError, ProgramError
from simenv.model import TaskOptions, TaskParts
from simenv.model.task_rules import checked_keep
from simenv.service.admission import rules
from simulators.circuit.analysis.measurements import rest_layout
from simulators.circuit.analysis.profile import Profile
from simulators.circuit.analysis.profiler import profile
from simulators.circuit.ir import Circuit
from simulators.circuit.passes.slicing import parts_problem, sliced


def check_terms(terms: TaskOptions) -> None:
    """Check the options of a task in parts. Raises OptionError for those that it cannot have."""
    parts = terms.parts
    if parts is None:
        return
    if terms.ranks != 1:
        raise OptionError(
            f"a circuit in parts, over ranks = {terms.ranks}",
            hint="ranks=1: its state is kept by one",
        )
    if terms.device or terms.noise or terms.snapshot:
        raise OptionError(
            "a circuit in parts, on an emulated device or with noise",
            hint="leave the noise out: the state after a part is one pure state",
        )
    checked_keep(parts.keep_s)


def examined(circuit: Circuit, parts: TaskParts, terms: TaskOptions, full: Profile) -> Profile:
    """Return the profile for the routing of a circuit in parts: with all of its qubits in memory,
    in the state that the parts leave and in those of the operations after them, which alone may
    branch. Raises ProgramError if the circuit cannot be divided so, OptionError for outputs that
    the operations after the parts do not have."""
    if problem := parts_problem(circuit, parts.ends):
        raise ProgramError(f"the program is not valid: {problem}")
    last = parts.ends[-1]
    rest = sliced(circuit, last, circuit.ops.size)
    rules.check_final_state(terms, rest, profile(rest, terms.outputs, rules.labels(terms)))
    branches = rest_layout(circuit, last, rest, keep=True).branching
    return msgspec.structs.replace(full, mid_circuit=branches, in_parts=True, kept=None)
