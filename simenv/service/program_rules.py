"""Rules that a task must meet before it is accepted: circuits, parts and calls.

`check_gradient_*` are the further rules for tasks that request a gradient.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from simenv import errors, model
from simenv.errors import OptionError
from simenv.model import task_rules
from simenv.model.calls import (
    DetectionCall,
    TranspileCall,
    check_call_terms,
    decode_call,
    is_call,
    target_entries,
)
from simenv.model.options import check_observables, check_options
from simenv.model.program import check_printable
from simenv.model.pulses import NOISY_TOLERANCE, TOLERANCE, TRAJECTORIES, PulseCall
from simenv.scheduler.core import Route
from simenv.scheduler.reservations.circuit_times import ProgramSize
from simenv.text import size
from simulators import catalog
from simulators.catalog.cards import pulse_steps
from simulators.catalog.decoders import decoder_card
from simulators.circuit.analysis.measurements import rest_layout
from simulators.circuit.analysis.profile import Profile
from simulators.circuit.analysis.profiler import profile
from simulators.circuit.ir import Circuit, outcome_width
from simulators.circuit.passes.components import parts_problem, sliced
from simulators.engine import PURE, SAMPLED, PauliSum
from simulators.errors import Unsupported
from simulators.execution.packing import shot_bytes

MAX_PARAMETERS = 2**20
VALUE_BYTES = 8  # float64
_WIDTHS = {"slots": 4, "columns": 4, "factors": 8}


def check_gradient_terms(terms: model.TaskOptions) -> None:
    """Check the options of a gradient, apart from the program. Raises SimenvError."""
    if "gradient" not in terms.outputs:
        if terms.chain is not None:
            raise OptionError("a chain rule came without the output 'gradient'")
        return
    if "expectation" not in terms.outputs:
        text = "the output 'gradient' is of expectation values, and none were asked for"
        raise OptionError(text, hint='outputs=("expectation", "gradient")')
    if terms.ranks != 1:
        hint = "ranks=1: of one rank"
        raise OptionError(f"a gradient was asked for over ranks = {terms.ranks}", hint=hint)
    chain = terms.chain
    if chain is None:
        return
    entries = {len(getattr(chain, name)) / width for name, width in _WIDTHS.items()}
    if len(entries) > 1 or not entries.pop().is_integer():
        raise OptionError("the parts of a chain rule have different lengths")
    if not 0 < chain.parameters <= MAX_PARAMETERS:
        text = f"a gradient by {chain.parameters} parameters; the limit is {MAX_PARAMETERS}"
        raise errors.LimitExceededError(text)
    columns = np.frombuffer(chain.columns, "<i4")
    if columns.size and not (columns.min() >= 0 and columns.max() < chain.parameters):
        raise OptionError("a chain rule names a parameter that does not exist")
    if not np.isfinite(np.frombuffer(chain.factors, "<f8")).all():
        raise OptionError("a factor of a chain rule is not a finite number")


def check_gradient_task(
    spec: model.TaskSpec, terms: model.TaskOptions, num_slots: int, most_bytes: int
) -> None:
    """Check a task with the output gradient and a program of `num_slots` slots."""
    if spec.shots:
        hint = "shots=None: gradients are exact"
        raise OptionError(f"a gradient was asked for with {spec.shots} shots", hint=hint)
    if not num_slots:
        hint = "leave parameters free, and give parameter_values"
        raise OptionError("a gradient was asked of a program without free parameters", hint=hint)
    chain = terms.chain or model.Chain(num_slots, b"", b"", b"")
    slots = np.frombuffer(chain.slots, "<i4")
    if slots.size and not (slots.min() >= 0 and slots.max() < num_slots):
        raise OptionError("a chain rule names a slot that the program does not have")
    widest = max(num_slots, chain.parameters)
    total = VALUE_BYTES * spec.count * len(terms.pauli_sums) * widest
    if total > most_bytes:
        raise errors.LimitExceededError(
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


def check_terms(terms: model.TaskOptions) -> None:
    """Check the options of tasks, apart from the program. Raises SimenvError."""
    if is_call(terms):
        check_call_terms(terms)
    check_options(terms)
    check_observables(terms)
    check_gradient_terms(terms)


def labels(terms: model.TaskOptions) -> Iterator[str]:
    """Return the Pauli strings of all observables."""
    return (label for observable in terms.pauli_sums for label in observable.labels)


def pauli_sums(terms: model.TaskOptions) -> tuple[PauliSum, ...]:
    """Return the observables as engines take them."""
    return tuple(
        PauliSum(each.labels, np.frombuffer(each.coefficients)) for each in terms.pauli_sums
    )


def check_app(terms: model.TaskOptions) -> None:
    """Check the application's id, which is no part of the content of the options."""
    if len(terms.app) > 64:
        raise OptionError(f"an application's id has at most 64 characters, got {len(terms.app)}")
    check_printable("an application's id", terms.app)


def check_task(spec: model.TaskSpec, terms: model.TaskOptions, facts: AdmittedProgram) -> None:
    """Check a task against its options and its admitted program. Raises SimenvError."""
    task_rules.check_shots(spec.shots, terms.device, facts.max_shots)
    task_rules.checked_integer("seed", spec.seed, 0, task_rules.MAX_SEED)
    task_rules.checked_integer("binding_index", spec.binding, 0, task_rules.MAX_BINDING)
    if not 1 <= spec.count <= model.MAX_BINDINGS:
        text = f"{spec.count} bindings in one task; 1 to {model.MAX_BINDINGS} are allowed"
        hint = "submit_many((circuit, bindings)) splits a longer sweep"
        raise errors.LimitExceededError(text, hint=hint)
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
                raise errors.LimitExceededError(
                    f"{spec.count} bindings with up to {bound} different outcomes of "
                    f"{facts.outcome_bytes} bytes each; a result may be {size(RESULT_BYTES)}",
                    hint="fewer bindings a task",
                )
            raise errors.LimitExceededError(
                f"{spec.shots} shots may give {bound} different outcomes of {facts.outcome_bytes} "
                f"bytes; a result may be {size(RESULT_BYTES)}",
                hint=f"at most {RESULT_BYTES // facts.outcome_bytes} shots a task: use several",
            )


def _check_sampled(output: str, spec: model.TaskSpec, facts: AdmittedProgram) -> None:
    if not facts.measures:
        raise task_rules.unmeasured(output)
    if spec.shots == 0:
        raise task_rules.without_shots(output)


def _check_memory(spec: model.TaskSpec, facts: AdmittedProgram) -> None:
    row = spec.shots * facts.memory_bytes
    if row * spec.count <= RESULT_BYTES:
        return
    message = (
        f"the memory of {spec.shots} shots of {facts.memory_bytes} bytes, times {spec.count}"
        f" bindings, is {size(row * spec.count)}; a result may be {size(RESULT_BYTES)}"
    )
    if row <= RESULT_BYTES:
        raise errors.LimitExceededError(message, hint="fewer bindings a task")
    max_shots = RESULT_BYTES // facts.memory_bytes
    raise errors.LimitExceededError(
        message,
        hint=f"ask for counts, or at most {max_shots} shots a task: several with other seeds",
    )


def _check_rows(count: int, terms: model.TaskOptions, facts: AdmittedProgram) -> None:
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
        raise errors.LimitExceededError(
            f"{count} bindings of {facts.route.num_qubits} qubits with {asked} are {size(total)}; "
            f"the result of several bindings may be {size(RESULT_BYTES)}",
            hint="fewer bindings a task",
        )


def admitted_by_route(
    program: model.Program, profile: Profile, route: Route, max_shots: int = 0
) -> AdmittedProgram:
    """Return the cached admission of a program with this route. `max_shots`: of its device."""
    bits = min(profile.num_clbits, profile.measurements)
    width = outcome_width(profile.num_clbits) + COUNT_BYTES
    distribution = distribution_bits(profile)
    work = model.Workload(
        qubits=profile.used_qubits,
        gates_1q=profile.gates_1q,
        gates_2q=profile.gates_2q + profile.gates_many,
        measurements=profile.measurements,
    )
    slots, measures = program.num_slots, profile.measurements > 0
    program_size = ProgramSize(work, is_dynamic=profile.mid_circuit or not program.ops)
    shot = shot_bytes(profile.num_clbits)
    return AdmittedProgram(
        slots, measures, bits, width, distribution, route, program_size, max_shots, shot
    )


def distribution_bits(profile: Profile) -> int:
    """Return bits so that at most 2**bits outcomes have a probability above 0."""
    bits = profile.num_clbits if profile.measurements else profile.used_qubits
    return bits if profile.mid_circuit else min(bits, profile.used_qubits)


def check_outputs(profile: Profile, terms: model.TaskOptions) -> None:
    """Check the size of a distribution, which takes memory besides the state; a statevector is
    written from the state's own memory."""
    bits = distribution_bits(profile)
    max_bytes = PROBABILITY_BYTES << min(60, bits)
    if "probabilities" in terms.outputs and max_bytes > RESULT_BYTES:
        raise errors.InfeasibleError(
            f"a distribution over {bits} bits may be {size(max_bytes)}; a result may "
            f"be {size(RESULT_BYTES)}",
            hint="measure fewer qubits, or ask for counts",
        )


def check_final_state(terms: model.TaskOptions, circuit: Circuit, profile: Profile) -> None:
    """Check that the requested outputs of the final state are defined for this circuit."""
    for output in terms.outputs:
        if output in PURE and (profile.measurements or profile.mid_circuit):
            text = f"output {output!r} was asked of a circuit that measures, resets or branches"
            hint = "remove that, or ask for probabilities or expectation values"
            raise OptionError(text, hint=hint)
    if "gradient" in terms.outputs and profile.mid_circuit:
        text = "a gradient was asked of a circuit that measures, resets or branches before its end"
        raise OptionError(text, hint="shift each parameter and ask for expectation values")
    if not terms.observables:
        return
    task_rules.check_widths(terms.bit_strings, circuit.num_qubits)
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
        task_rules.refuse_collapsed(
            labels, task_rules.measured_last(circuit.table.names, sizes, *arrays)
        )


def check_part_terms(terms: model.TaskOptions) -> None:
    """Check the options of a task in parts. Raises OptionError for those that it cannot have."""
    parts = terms.parts
    if parts is None:
        return
    if terms.ranks != 1:
        hint = "ranks=1: its state is kept by one"
        raise OptionError(f"a circuit in parts, over ranks = {terms.ranks}", hint=hint)
    if terms.device or terms.noise or terms.snapshot:
        hint = "leave the noise out: the state after a part is one pure state"
        raise OptionError("a circuit in parts, on an emulated device or with noise", hint=hint)
    task_rules.checked_keep(parts.keep_s)


def examined(
    circuit: Circuit, parts: model.TaskParts, terms: model.TaskOptions, full: Profile
) -> Profile:
    """Return the profile for the routing of a circuit in parts: with all of its qubits in memory,
    in the state that the parts leave and in those of the operations after them, which alone may
    branch. Raises ProgramError if the circuit cannot be divided so, OptionError for outputs that
    the operations after the parts do not have."""
    if problem := parts_problem(circuit, parts.ends):
        raise errors.ProgramError(f"the program is not valid: {problem}")
    last = parts.ends[-1]
    rest = sliced(circuit, last, circuit.ops.size)
    check_final_state(terms, rest, profile(rest, terms.outputs, labels(terms)))
    branches = rest_layout(circuit, last, rest, keep=True).branching
    return msgspec.structs.replace(full, mid_circuit=branches, in_parts=True, kept=None)


_NO_CIRCUIT = model.Program(model.PROGRAM_FORMAT, 0, 0, (), (), b"", b"", b"", b"", b"")
_NO_SIZES = Profile(0, 0, 0, 0, 0, 0, 0, 0, mid_circuit=False, conditions=0)


def check_owner(terms: model.TaskOptions, owner: str) -> None:
    """Check the owner of a task. Raises NotAllowedError if the owner of a key requests an engine
    that is reserved for the environment's own user. Not called where accounts are isolated."""
    card = catalog.card(terms.engine)
    if owner and card is not None and card.pool == "functions":
        raise errors.NotAllowedError(
            f"engine {card.name!r} runs tasks of the environment's own user alone, and this one"
            f" came with the key {owner!r}",
            hint="connect without a key, as that user, where the environment runs; or start it with"
            " isolation = 'account'",
        )


def _pulse_work(call: PulseCall, terms: model.TaskOptions) -> tuple[int, int]:
    """Return the steps of an evolution of a pulse sequence and the number of evolutions, before the
    noise of its device is known."""
    is_noisy = bool(call.noise) or (bool(terms.snapshot) and ("all", 0.0) not in terms.noise)
    tolerance = call.tolerance or (NOISY_TOLERANCE if is_noisy else TOLERANCE)
    sizes = call.sizes
    steps = pulse_steps(sizes.atoms, sizes.duration_ns, call.rate_rad_us, call.jumps, tolerance)
    trajectories = call.evolutions or call.trajectories or TRAJECTORIES
    return steps, trajectories if is_noisy else 1


def examined_call(packed: bytes, terms: model.TaskOptions) -> tuple[model.Program, Profile]:
    """Return a call as a program without operations, and its profile.

    The profile has one operation for each circuit to compile and a gate for each entry of the
    compiler's table, one operation for a function, the sizes of a circuit with detectors, which has
    a gate for each of its operations on a device, and of a pulse sequence its atoms, its
    nanoseconds, a gate on one qubit for each step and one on two for each trajectory. Only workers
    decode the pickles, circuits and sequences in a call. Raises ProgramError, OptionError,
    LimitExceededError, VersionMismatchError.
    """
    call = decode_call(terms.engine, packed)
    if isinstance(call, DetectionCall):
        sizes = call.sizes
        if (call.placement is None) != (not terms.snapshot):
            text = "a circuit of stim with a device and no place on it, or without a device"
            raise OptionError(text, hint="device= with qubit_mapping=; a pool without a device")
        if call.decoder:
            try:
                decoder_card(call.decoder)
            except Unsupported as error:
                raise OptionError(error.message, hint=error.hint) from error
        return _NO_CIRCUIT, msgspec.structs.replace(
            _NO_SIZES,
            num_qubits=sizes.qubits,
            num_clbits=sizes.detectors + sizes.observables,
            operations=sizes.operations,
            gates_2q=0 if call.placement is None else sizes.written,
        )
    if isinstance(call, PulseCall):
        pulses = call.sizes
        steps, trajectories = _pulse_work(call, terms)
        return _NO_CIRCUIT, msgspec.structs.replace(
            _NO_SIZES,
            num_qubits=pulses.atoms,
            operations=pulses.duration_ns,
            gates_1q=steps,
            gates_2q=trajectories,
        )
    if isinstance(call, TranspileCall):
        return _NO_CIRCUIT, msgspec.structs.replace(
            _NO_SIZES, operations=len(call.circuits), gates_2q=target_entries(call.device)
        )
    return _NO_CIRCUIT, msgspec.structs.replace(_NO_SIZES, operations=1)
