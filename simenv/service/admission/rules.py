"""Rules that a task must meet before it is accepted; each violation is an error with a hint.

`check_gradient_*` are the further rules for tasks that request a gradient.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from simenv.errors import InfeasibleError, LimitExceededError, OptionError
from simenv.model import (
    MAX_BINDINGS,
    MAX_SHOTS,
    Chain,
    Program,
    TaskOptions,
    TaskSpec,
    Workload,
    task_rules,
)
from simenv.model.bounds import check_printable
from simenv.model.final_measurements import measured_last, refuse_collapsed
from simenv.model.task_rules import (
    MAX_BINDING,
    MAX_SEED,
    check_widths,
    checked_integer,
    unmeasured,
    without_shots,
)
from simenv.scheduler.core.types import Route
from simenv.scheduler.reservations.circuit_times import ProgramSize
from simenv.scheduler.routing.engine_choice import size
from simulators.circuit.analysis.profile import Profile
from simulators.circuit.ir import Circuit, outcome_width
from simulators.engine import PURE, SAMPLED
from simulators.execution.sampling import shot_bytes

MAX_PARAMETERS = 2**20
VALUE_BYTES = 8  # float64
_WIDTHS = {"slots": 4, "columns": 4, "factors": 8}


def check_gradient_terms(terms: TaskOptions) -> None:
    """Check the options of a gradient, apart from the program. Raises SimenvError."""
    if "gradient" not in terms.outputs:
        if terms.chain is not None:
            raise OptionError("a chain rule came without the output 'gradient'")
        return
    if "expectation" not in terms.outputs:
        raise OptionError(
            "the output 'gradient' is of expectation values, and none were asked for",
            hint='outputs=("expectation", "gradient")',
        )
    if terms.ranks != 1:
        raise OptionError(
            f"a gradient was asked for over ranks = {terms.ranks}", hint="ranks=1: of one rank"
        )
    chain = terms.chain
    if chain is None:
        return
    entries = {len(getattr(chain, name)) / width for name, width in _WIDTHS.items()}
    if len(entries) > 1 or not entries.pop().is_integer():
        raise OptionError("the parts of a chain rule have different lengths")
    if not 0 < chain.parameters <= MAX_PARAMETERS:
        raise LimitExceededError(
            f"a gradient by {chain.parameters} parameters; the limit is {MAX_PARAMETERS}"
        )
    columns = np.frombuffer(chain.columns, "<i4")
    if columns.size and not (columns.min() >= 0 and columns.max() < chain.parameters):
        raise OptionError("a chain rule names a parameter that does not exist")
    if not np.isfinite(np.frombuffer(chain.factors, "<f8")).all():
        raise OptionError("a factor of a chain rule is not a finite number")


def check_gradient_task(
    spec: TaskSpec, terms: TaskOptions, num_slots: int, most_bytes: int
) -> None:
    """Check a task with the output gradient and a program of `num_slots` slots."""
    if spec.shots:
        raise OptionError(
            f"a gradient was asked for with {spec.shots} shots",
            hint="shots=None: gradients are exact",
        )
    if not num_slots:
        raise OptionError(
            "a gradient was asked of a program without free parameters",
            hint="leave parameters free, and give parameter_values",
        )
    chain = terms.chain or Chain(num_slots, b"", b"", b"")
    slots = np.frombuffer(chain.slots, "<i4")
    if slots.size and not (slots.min() >= 0 and slots.max() < num_slots):
        raise OptionError("a chain rule names a slot that the program does not have")
    widest = max(num_slots, chain.parameters)
    total = VALUE_BYTES * spec.count * len(terms.pauli_sums) * widest
    if total > most_bytes:
        raise LimitExceededError(
            f"gradients of {len(terms.pauli_sums)} observables by {widest} parameters, for"
            f" {spec.count} bindings, are {size(total)}; a result may be {size(most_bytes)}",
            hint="fewer bindings or observables a task",
        )


RESULT_BYTES = 256 * 2**20  # of arrays that take memory besides the state
COUNT_BYTES = 4  # uint32
PROBABILITY_BYTES = 16  # an outcome of up to 64 bits and a float64
EXPECTATION_BYTES = 16  # value and standard error


class AdmittedProgram(msgspec.Struct, frozen=True, gc=False):
    """Cached result of the admission of a program."""

    num_slots: int
    measures: bool
    outcome_bits: int  # at most 2 to this power different outcomes
    outcome_bytes: int  # of one outcome and its count
    distribution_bits: int  # at most 2 to this power outcomes have a probability above 0
    route: Route
    size: ProgramSize  # for reservations; shots and count are the task's
    max_shots: int = 0  # of the device; 0: MAX_SHOTS
    memory_bytes: int = 0  # of one shot in the output `memory`


def check_terms(terms: TaskOptions) -> None:
    """Check the options of tasks, apart from the program. Raises SimenvError."""
    task_rules.check_terms(terms)
    check_gradient_terms(terms)


def labels(terms: TaskOptions) -> Iterator[str]:
    """Return the Pauli strings of all observables."""
    return (label for observable in terms.pauli_sums for label in observable.labels)


def check_app(terms: TaskOptions) -> None:
    """Check the application's id, which is no part of the content of the options."""
    if len(terms.app) > 64:
        raise OptionError(f"an application's id has at most 64 characters, got {len(terms.app)}")
    check_printable("an application's id", terms.app)


def is_keyed(spec: TaskSpec) -> bool:
    """Return whether the numbers of the task's random key are within bounds."""
    return 0 <= spec.seed <= MAX_SEED and 0 <= spec.binding <= MAX_BINDING


def check_device_shots(shots: int, device: str, max_shots: int) -> None:
    """Check the shots against those that a device takes; `max_shots` 0: any. Raises OptionError."""
    if max_shots and shots > max_shots:
        raise OptionError(
            f"{shots} shots; device {device} takes {max_shots} of one circuit",
            hint="several tasks with other seeds",
        )


def check_task(spec: TaskSpec, terms: TaskOptions, facts: AdmittedProgram) -> None:
    """Check a task against its options and its admitted program. Raises SimenvError."""
    checked_integer("shots", spec.shots, 0, MAX_SHOTS, "None or 0: exact")
    check_device_shots(spec.shots, terms.device, facts.max_shots)
    checked_integer("seed", spec.seed, 0, MAX_SEED)
    checked_integer("binding_index", spec.binding, 0, MAX_BINDING)
    if not 1 <= spec.count <= MAX_BINDINGS:
        raise LimitExceededError(
            f"{spec.count} bindings in one task; 1 to {MAX_BINDINGS} are allowed",
            hint="submit_many((circuit, bindings)) splits a longer sweep",
        )
    if len(spec.bindings) != 8 * facts.num_slots * spec.count or (
        spec.count > 1 and not facts.num_slots
    ):
        raise OptionError(
            f"the program has {facts.num_slots} free parameter expressions and the task "
            f"{spec.count} bindings; {len(spec.bindings) // 8} values were given",
            hint="give parameter_values= for every parameter",
        )
    if spec.bindings and not np.isfinite(np.frombuffer(spec.bindings, "<f8")).all():
        raise OptionError("a parameter value is not a finite number")
    if "gradient" in terms.outputs:
        check_gradient_task(spec, terms, facts.num_slots, RESULT_BYTES)
    if spec.count > 1:
        _check_rows(spec.count, terms, facts)
    for output in terms.outputs:
        if output in SAMPLED:
            _check_sampled(output, spec, facts)
    if "memory" in terms.outputs:
        _check_memory(spec, facts)
    if "counts" in terms.outputs:
        bound = min(spec.shots, 1 << min(62, facts.outcome_bits))
        if bound * facts.outcome_bytes * spec.count > RESULT_BYTES:
            if spec.count > 1:
                raise LimitExceededError(
                    f"{spec.count} bindings with up to {bound} different outcomes of "
                    f"{facts.outcome_bytes} bytes each; a result may be {size(RESULT_BYTES)}",
                    hint="fewer bindings a task",
                )
            raise LimitExceededError(
                f"{spec.shots} shots may give {bound} different outcomes of {facts.outcome_bytes} "
                f"bytes; a result may be {size(RESULT_BYTES)}",
                hint=f"at most {RESULT_BYTES // facts.outcome_bytes} shots a task: use several",
            )


def _check_sampled(output: str, spec: TaskSpec, facts: AdmittedProgram) -> None:
    if not facts.measures:
        raise unmeasured(output)
    if spec.shots == 0:
        raise without_shots(output)


def _check_memory(spec: TaskSpec, facts: AdmittedProgram) -> None:
    row = spec.shots * facts.memory_bytes
    if row * spec.count <= RESULT_BYTES:
        return
    message = (
        f"the memory of {spec.shots} shots of {facts.memory_bytes} bytes, times {spec.count}"
        f" bindings, is {size(row * spec.count)}; a result may be {size(RESULT_BYTES)}"
    )
    if row <= RESULT_BYTES:
        raise LimitExceededError(message, hint="fewer bindings a task")
    max_shots = RESULT_BYTES // facts.memory_bytes
    raise LimitExceededError(
        message,
        hint=f"ask for counts, or at most {max_shots} shots a task: several with other seeds",
    )


def _check_rows(count: int, terms: TaskOptions, facts: AdmittedProgram) -> None:
    """Check that the arrays of all bindings fit into memory together."""
    amplitude_bytes = 8 if terms.precision == "single" else 16
    row = {
        "statevector": amplitude_bytes << facts.route.num_qubits,
        "probabilities": PROBABILITY_BYTES << min(60, facts.distribution_bits),
        "expectation": EXPECTATION_BYTES * len(terms.pauli_sums),
        "amplitudes": amplitude_bytes * len(terms.bit_strings),
    }
    total = count * sum(row.get(output, 0) for output in terms.outputs)
    if total > RESULT_BYTES:
        asked = " and ".join(output for output in terms.outputs if output in row)
        raise LimitExceededError(
            f"{count} bindings of {facts.route.num_qubits} qubits with {asked} are {size(total)}; "
            f"the result of several bindings may be {size(RESULT_BYTES)}",
            hint="fewer bindings a task",
        )


def admitted_by_route(
    program: Program, profile: Profile, route: Route, max_shots: int = 0
) -> AdmittedProgram:
    """Return the cached admission of a program with this route. `max_shots`: of its device."""
    bits = min(profile.num_clbits, profile.measurements)
    width = outcome_width(profile.num_clbits) + COUNT_BYTES
    distribution = distribution_bits(profile)
    work = Workload(
        qubits=profile.used_qubits,
        gates_1q=profile.gates_1q,
        gates_2q=profile.gates_2q + profile.gates_many,
        measurements=profile.measurements,
    )
    return AdmittedProgram(
        program.num_slots,
        profile.measurements > 0,
        bits,
        width,
        distribution,
        route,
        ProgramSize(work, is_dynamic=profile.mid_circuit or not program.ops),
        max_shots,
        shot_bytes(profile.num_clbits),
    )


def distribution_bits(profile: Profile) -> int:
    """Return bits so that at most 2**bits outcomes have a probability above 0."""
    bits = profile.num_clbits if profile.measurements else profile.used_qubits
    return bits if profile.mid_circuit else min(bits, profile.used_qubits)


def check_outputs(profile: Profile, terms: TaskOptions) -> None:
    """Check the size of a distribution, which takes memory besides the state; a statevector is
    written from the state's own memory."""
    bits = distribution_bits(profile)
    max_bytes = PROBABILITY_BYTES << min(60, bits)
    if "probabilities" in terms.outputs and max_bytes > RESULT_BYTES:
        raise InfeasibleError(
            f"a distribution over {bits} bits may be {size(max_bytes)}; a result may "
            f"be {size(RESULT_BYTES)}",
            hint="measure fewer qubits, or ask for counts",
        )


def check_final_state(terms: TaskOptions, circuit: Circuit, profile: Profile) -> None:
    """Check that the requested outputs of the final state are defined for this circuit."""
    for output in terms.outputs:
        if output in PURE and (profile.measurements or profile.mid_circuit):
            raise OptionError(
                f"output {output!r} was asked of a circuit that measures, resets or branches",
                hint="remove that, or ask for probabilities or expectation values",
            )
    check_widths(terms.bit_strings, circuit.num_qubits)
    if "gradient" in terms.outputs and profile.mid_circuit:
        raise OptionError(
            "a gradient was asked of a circuit that measures, resets or branches before its end",
            hint="shift each parameter and ask for expectation values",
        )
    labels = [label for observable in terms.pauli_sums for label in observable.labels]
    for label in labels:
        if len(label) != circuit.num_qubits:
            raise OptionError(
                f"observable {label[:40]!r} is {len(label)} wide, the program has "
                f"{circuit.num_qubits} qubits"
            )
    if profile.measurements and any("X" in label or "Y" in label for label in labels):
        sizes = circuit.table.rows[:, 1].tolist()
        arrays = circuit.ops.tolist(), circuit.qubits.tolist()
        refuse_collapsed(labels, measured_last(circuit.table.names, sizes, *arrays))
