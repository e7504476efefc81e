"""Conversion of circuits, parameter values and options to messages. All errors of a batch are found
before a message is sent.

A circuit object that is given several times in one call is packed once. A sweep is split into tasks
as a function of its circuit and options alone: a repeat of the call with the same idempotency key
is split in the same places. The split does not change counts: a binding's random key is its index
in the whole sweep.

The options that are sent with circuits, and refusals of outputs that a circuit cannot have. Number
of bindings of a sweep in each task: a function of circuit and options alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from simenv.client.circuits import PackedCircuit, load, load_many, load_observables
from simenv.client.circuits.parameters import chain
from simenv.client.submission import options as submission_options
from simenv.client.submission.devices import DeviceUse, SubmitDevices
from simenv.client.submission.options import CheckedOptions
from simenv.errors import LimitExceededError, OptionError, ProgramError, SimenvError
from simenv.model import MAX_BINDINGS, Observable, Program, TaskOptions, TaskSpec, task_rules
from simenv.model.options import OF_PULSES, OF_STIM, BatchOptions, SubmitOptions, check_observables
from simenv.model.task_rules import checked_list
from simenv.wire.codec import error_of_batch
from simenv.wire.messages.explain import Explain

if TYPE_CHECKING:
    from simenv.client.circuits import ChannelNames
    from simenv.client.submission.compiler import CompiledCircuit


def terms_of(
    loaded: PackedCircuit, requested: Mapping[str, Any], options: CheckedOptions
) -> TaskOptions:
    """Return the options that are sent with one circuit. `requested`: with `observables` and
    `amplitudes`, if any. Raises OptionError, LimitExceededError, ProgramError."""
    measures, observables = loaded.measures, requested.get("observables")
    pauli = None if observables is None else load_observables(observables, loaded.num_qubits)
    terms = options.task_options(measures, pauli)
    terms = _checked(terms, requested.get("amplitudes"), loaded.num_qubits)
    error = _contradiction(terms, measures, -1)
    if error is not None:
        raise error
    return terms


def with_chain(terms: TaskOptions, loaded: PackedCircuit, parameter_values: Any) -> TaskOptions:
    """Return the options with the chain rule of a gradient. Raises OptionError, ProgramError."""
    if "gradient" not in terms.outputs:
        return terms
    if not loaded.parameters:
        hint = "leave parameters free, and give parameter_values"
        raise OptionError("a gradient was asked of a circuit without free parameters", hint=hint)
    jacobian = chain(loaded.slots, parameter_values)
    return terms if jacobian is None else msgspec.structs.replace(terms, chain=jacobian)


def common_terms(
    programs: Sequence[PackedCircuit],
    requested: Mapping[str, Any],
    options: CheckedOptions,
    errors: list[SimenvError],
) -> TaskOptions:
    """Return the options that are sent with several circuits; append contradictions to `errors`.
    `requested`: see `terms_of`."""
    measures = [loaded.measures for loaded in programs]
    width, observables = programs[0].num_qubits, requested.get("observables")
    pauli = None if observables is None else load_observables(observables, width)
    for name in ("observables", "amplitudes"):
        errors += [
            OptionError(
                f"the {name} are for {width} qubits, this has {loaded.num_qubits}",
                hint="circuits of one width in one call",
                index=index,
            )
            for index, loaded in enumerate(programs)
            if loaded.num_qubits != width and requested.get(name) is not None
        ]
    terms = options.task_options(any(measures), pauli)
    terms = _checked(terms, requested.get("amplitudes"), width)
    contradicted = [each for each in set(measures) if _contradiction(terms, each, -1)]
    for index, measured in enumerate(measures if contradicted else ()):
        error = _contradiction(terms, measured, index)
        if error is not None:
            errors.append(error)
    return terms


def _checked(terms: TaskOptions, amplitudes: Any, num_qubits: int) -> TaskOptions:
    """Return the options with the bit strings of the output `amplitudes`, by the rules that the
    service applies. Raises OptionError, LimitExceededError."""
    if amplitudes is not None or "amplitudes" in terms.outputs:
        values = (amplitudes,) if isinstance(amplitudes, str) else amplitudes or ()
        strings = checked_list("amplitudes", values, 'a list of bit strings, such as ["0101"]')
        if any(not isinstance(text, str) for text in strings):
            raise OptionError(f"amplitudes={strings!r:.80}", hint='bit strings, such as ["0101"]')
        observables = (*terms.observables, Observable(strings, b""))
        terms = msgspec.structs.replace(terms, observables=observables)
    if terms.observables or "amplitudes" in terms.outputs:
        check_observables(terms)
        task_rules.check_widths(terms.bit_strings, num_qubits)
    return terms


def _contradiction(terms: TaskOptions, measures: bool, index: int) -> ProgramError | None:
    """Return the error for an output that needs, or excludes, a measurement; else None."""
    sampled = [output for output in terms.outputs if output in submission_options.SAMPLED]
    if sampled and not measures:
        return task_rules.unmeasured(sampled[0], index)
    for output in ("statevector", "amplitudes") if measures else ():
        if output in terms.outputs:
            return ProgramError(
                f"output {output!r} was asked of a circuit that measures",
                hint="remove the measurements, or ask for probabilities",
                index=index,
            )
    return None


def unbound(loaded: PackedCircuit) -> str:
    """Return the message about free parameters without values."""
    names = ", ".join(str(name) for name in loaded.parameters[:5])
    noun = "parameter" if len(loaded.parameters) == 1 else "parameters"
    return f"the circuit has {len(loaded.parameters)} {noun} without a value: {names}"


def of_item(error: SimenvError, index: int) -> SimenvError:
    error.index = index
    return error.with_traceback(None)


MIN_TASK_US = 600.0  # least work of a task, if the sweep has so much: one more costs as much
MAX_TASK_US = 100_000.0  # most work of a task: workers share a sweep evenly, and a cancel acts soon
FEW = 64  # least bindings of a task, unless the circuit is slow
PARTS = 16  # tasks of a sweep: some for each of several workers
RESULT_BYTES = 16 * 2**20  # most bytes of one task's result
MAX_COMPILED = 1_024  # bindings that are compiled one by one: as many as a compiler keeps
BINDINGS_BYTES = 2 * 2**20  # most bytes of one task's bindings: far below a message's limit
_GATE_US = 0.03
_AMPLITUDE_US = 1.2e-3  # one gate on one amplitude
_SHOT_US = 3e-3


def bindings_per_task(program: Program, terms: TaskOptions, shots: int, total: int) -> int:
    """Return the number of bindings in each task of a sweep of `total`."""
    cost_us = _cost_us(program, shots)
    largest = min(MAX_BINDINGS, RESULT_BYTES // _row_bytes(program, terms, shots))
    row_bytes = 8 * max(1, program.num_slots)
    largest = min(largest, int(MAX_TASK_US / cost_us), BINDINGS_BYTES // row_bytes)
    least = max(FEW, -(-MIN_TASK_US // cost_us)) if cost_us * FEW < MAX_TASK_US / 10 else 1
    rows = max(1, min(largest, max(int(least), -(-total // PARTS))))
    if not rows < total <= rows * PARTS:
        return rows
    even = -(-total // -(-total // rows))  # the same number of tasks, of equal size
    return max(min(rows, FEW), even)


def _cost_us(program: Program, shots: int) -> float:
    gates = len(program.ops) // 2 + 2
    # Few qubits are in use in a circuit mapped to a device.
    amplitudes = 2.0 ** min(len(set(memoryview(program.qubits).cast("H"))), 64)
    return gates * (_GATE_US + amplitudes * _AMPLITUDE_US) + shots * _SHOT_US


def _row_bytes(program: Program, terms: TaskOptions, shots: int) -> int:
    """Return the largest size of one binding's result in bytes."""
    qubits, bits = min(program.num_qubits, 60), min(program.num_clbits or program.num_qubits, 60)
    sizes = {
        "counts": min(shots, 1 << bits) * (12 + program.num_clbits // 8),
        "memory": shots * -(-program.num_clbits // 8),
        "probabilities": 16 << bits,
        "statevector": 16 << qubits,
        "expectation": 16 * len(terms.pauli_sums),
        "gradient": 8 * len(terms.pauli_sums) * max(1, program.num_slots),
        "amplitudes": 16 * len(terms.bit_strings),
    }
    return 16 + sum(sizes[output] for output in terms.outputs if output in sizes)


_AS_WRITTEN = (b"", b"")  # layouts of a circuit that was not mapped


class PreparedSubmit(msgspec.Struct, frozen=True):
    """Checked and packed tasks of one call, which share `terms`."""

    terms: TaskOptions
    specs: list[TaskSpec]
    single: bool = False  # errors are about the call, not about one of several items
    sweep_of: tuple[int, ...] = ()  # sweep of each spec, where the items of the call are sweeps


def prepare_one(
    circuit: Any, options: SubmitOptions, devices: SubmitDevices | None = None
) -> PreparedSubmit:
    """Check and pack one task; see `Client.submit`. `devices` None: no emulated devices."""
    checked = _checked_options(options, devices)
    values = options.get("parameter_values")
    if values is not None and devices is not None and devices.takes_numbers(checked):
        packed = load(circuit, _channels(checked, devices))
        circuit, values = packed.bound(_single_row(packed, values)[0]), None
    checked, loaded, compiled, terms = _loaded(circuit, options, checked, devices)
    layouts = _AS_WRITTEN if compiled is None else compiled.layouts
    rows = _single_row(loaded, values)
    terms = with_chain(terms, loaded, values)
    if rows is not None and checked.named and devices is not None:
        loaded, rows = devices.within_limits(checked, loaded, rows)
    row = b"" if rows is None else rows.tobytes()
    seed = submission_options.checked_seed(options.get("seed"), options.get("idempotency_key"))
    binding = 0
    if "binding_index" in options:
        binding = submission_options.checked_binding(options["binding_index"])
    spec = TaskSpec(loaded.packed, checked.shots, seed, row, binding, 1, *layouts)
    return PreparedSubmit(terms, [spec], single=True)


def _loaded(
    circuit: Any,
    options: SubmitOptions | BatchOptions,
    checked: CheckedOptions,
    devices: SubmitDevices | None,
) -> tuple[CheckedOptions, PackedCircuit, CompiledCircuit | None, TaskOptions]:
    """Pack the circuit, compiled for the device of its options if they have one. Return the new
    options, the circuit, also as it was compiled, and the options that are sent. Raises
    SimenvError."""
    loaded, compiled = load(circuit, _channels(checked, devices)), None
    if checked.named and devices is not None:
        checked, compiled = devices.prepared(checked, loaded)
    terms = terms_of(loaded, options, checked)
    if compiled is None:
        return checked, loaded, None, terms
    moved = compiled.observables(terms.observables)
    terms = msgspec.structs.replace(terms, observables=moved)
    return checked, compiled.loaded, compiled, terms


def _channels(checked: CheckedOptions, devices: SubmitDevices | None) -> ChannelNames | None:
    return devices.channels(checked) if devices is not None and checked.document else None


def prepare_many(
    work: Any, options: BatchOptions, devices: SubmitDevices | None = None
) -> PreparedSubmit:
    """Check and pack several circuits, a sweep or several sweeps; see `Client.submit_many`."""
    submission_options.check_names(options, BatchOptions)
    shots: Any = options.get("shots", submission_options.DEFAULTS["shots"])
    if isinstance(work, list) and work and all(map(_is_sweep, work)):
        return _prepare_sweeps(work, shots, options, devices)
    if isinstance(shots, Sequence):
        hint = "one number; several go with a list of sweeps, one each"
        raise OptionError(f"shots={shots!r:.80}", hint=hint)
    checked = _checked_options(options, devices)
    if _is_sweep(work):
        circuit, values = work
        return _sweep(circuit, values, options, checked, devices)
    if isinstance(work, str | bytes) or not isinstance(work, Iterable) or hasattr(work, "qubits"):
        message = f"submit_many wants several circuits, got one {type(work).__name__}"
        hint = "submit(circuit); or submit_many((circuit, parameter_values)) for a sweep"
        raise OptionError(message, hint=hint)
    return _prepare_batch(list(work), options, checked, devices)


def prepare_question(
    circuit: Any, options: SubmitOptions, devices: SubmitDevices | None = None
) -> tuple[Explain, DeviceUse]:
    """Return an Explain request, and what the circuit takes of its device beside gates."""
    checked = _checked_options(options, devices)
    values, count = options.get("parameter_values"), 1
    if values is not None and devices is not None and devices.takes_numbers(checked):
        packed = load(circuit, _channels(checked, devices))
        rows = packed.bind(values)
        circuit, values, count = packed.bound(rows[0]), None, len(rows)
    checked, loaded, compiled, terms = _loaded(circuit, options, checked, devices)
    count = count if values is None else len(loaded.bind(values))
    asked = Explain(0, terms, loaded.packed, checked.shots, count)
    if compiled is None or devices is None:
        return asked, DeviceUse()
    return asked, devices.use(checked, compiled)


def _checked_options(
    options: SubmitOptions | BatchOptions, devices: SubmitDevices | None
) -> CheckedOptions:
    """Check the options that all tasks of a call share."""
    given: Mapping[str, Any] = options
    device = options.get("device")
    if devices is not None and device is not None and not isinstance(device, str):
        given = {**options, "device": devices.named(device)}
    key = options.get("idempotency_key")
    if key is not None:
        task_rules.checked_key(key)
    for name in OF_STIM:
        if (value := options.get(name)) is not None:
            hint = "circuits of stim with detectors are decoded, by `submit` and `run`"
            raise OptionError(f"{name}={value!r:.80}", hint=hint)
    for name in OF_PULSES:
        if (value := options.get(name)) is not None:
            raise OptionError(f"{name}={value!r:.80} of a circuit", hint="pulse sequences have it")
    return submission_options.checked_options(submission_options.with_job_reservation(given))


def _sweep(
    circuit: Any,
    values: Any,
    options: BatchOptions,
    checked: CheckedOptions,
    devices: SubmitDevices | None,
) -> PreparedSubmit:
    """Prepare a sweep: one binding for each set of parameter values, sent as few tasks."""
    if devices is not None and devices.takes_numbers(checked):
        return _compiled_bindings(circuit, values, options, checked, devices)
    checked, loaded, compiled, terms = _loaded(circuit, options, checked, devices)
    layouts = _AS_WRITTEN if compiled is None else compiled.layouts
    rows = loaded.bind(values)
    terms = with_chain(terms, loaded, values)
    if checked.named and devices is not None:
        loaded, rows = devices.within_limits(checked, loaded, rows)
    seed = options.get("seed")
    seeds = submission_options.sweep_seeds(seed, len(rows), options.get("idempotency_key"))
    packed, shots, total = loaded.packed, checked.shots, len(rows)
    each = 1
    if submission_options.is_single_seed(seed) and rows.shape[1]:
        each = bindings_per_task(loaded.program, terms, shots, total)
    return PreparedSubmit(
        terms,
        [
            TaskSpec(
                packed,
                shots,
                seeds[first],
                rows[first : first + each].tobytes(),
                first,
                min(each, total - first),
                *layouts,
            )
            for first in range(0, total, each)
        ],
    )


def _compiled_bindings(
    circuit: Any,
    values: Any,
    options: BatchOptions,
    checked: CheckedOptions,
    devices: SubmitDevices,
) -> PreparedSubmit:
    """Prepare a sweep on a device without gates with an angle: each binding is compiled, and is a
    task of its own."""
    packed = load(circuit, _channels(checked, devices))
    rows = packed.bind(values)
    if len(rows) > MAX_COMPILED:
        raise LimitExceededError(
            f"{len(rows)} bindings for a device without gates with an angle, where each is compiled"
            f" for itself: the limit is {MAX_COMPILED}",
            hint="sweeps of fewer bindings; or a device whose gates have angles",
        )
    errors: list[SimenvError] = []
    programs = [packed.bound(row) for row in rows]
    terms, programs, layouts = _compile_batch(programs, options, checked, devices, errors)
    if terms is None or errors:
        error = errors[0]
        error.index = -1
        raise error
    seeds = submission_options.sweep_seeds(
        options.get("seed"), len(rows), options.get("idempotency_key")
    )
    return PreparedSubmit(
        terms,
        [
            TaskSpec(loaded.packed, checked.shots, seeds[index], b"", index, 1, *places)
            for index, (loaded, places) in enumerate(zip(programs, layouts, strict=True))
        ],
    )


def _prepare_sweeps(
    sweeps: Sequence[tuple[Any, Any]],
    shots: Any,
    options: BatchOptions,
    devices: SubmitDevices | None,
) -> PreparedSubmit:
    """Prepare sweeps that share all options except shots and seeds. Raises BatchRefusedError, which
    names every bad one."""
    key = options.get("idempotency_key")
    seeds = submission_options.item_seeds(options.get("seed"), len(sweeps), key)
    each = shots if isinstance(shots, Sequence) else [shots] * len(sweeps)
    if len(each) != len(sweeps):
        hint = "one each, or one"
        raise OptionError(f"{len(each)} numbers of shots for {len(sweeps)} sweeps", hint=hint)
    parts: list[PreparedSubmit] = []
    errors: list[SimenvError] = []
    for index, (circuit, values) in enumerate(sweeps):
        sweep_options: BatchOptions = {**options, "seed": seeds[index], "shots": each[index]}
        try:
            parts.append(
                _sweep(
                    circuit,
                    values,
                    sweep_options,
                    _checked_options(sweep_options, devices),
                    devices,
                )
            )
            if parts[-1].terms != parts[0].terms:
                raise OptionError(
                    "sweeps of one call share observables, device and outputs, and these differ"
                    " once they are compiled",
                    hint="submit them in calls of their own",
                )
        except SimenvError as error:
            errors.append(of_item(error, index))
    if errors:
        raise error_of_batch(errors, len(sweeps))
    return PreparedSubmit(
        parts[0].terms,
        [spec for part in parts for spec in part.specs],
        sweep_of=tuple(index for index, part in enumerate(parts) for _ in part.specs),
    )


def _prepare_batch(
    circuits: Sequence[Any],
    options: BatchOptions,
    checked: CheckedOptions,
    devices: SubmitDevices | None,
) -> PreparedSubmit:
    """Prepare one task for each circuit. Raises BatchRefusedError, which names every bad one."""
    distinct = {id(circuit): circuit for circuit in circuits}  # repeated ones are packed once
    channels = _channels(checked, devices)
    found: dict[int, PackedCircuit | None] = {}
    if channels is None:
        found = dict(zip(distinct, load_many([*distinct.values()]), strict=True))
    errors: list[SimenvError] = []
    programs: list[PackedCircuit] = []
    for index, circuit in enumerate(circuits):
        loaded = found.get(id(circuit))
        if loaded is not None:
            programs.append(loaded)
            continue
        try:
            loaded = load(circuit, channels)
            if loaded.parameters:
                hint = "submit_many((circuit, parameter_values)) binds one"
                raise OptionError(unbound(loaded), hint=hint)
            programs.append(loaded)
            found[id(circuit)] = loaded
        except SimenvError as error:
            errors.append(of_item(error, index))
    if not circuits:
        return PreparedSubmit(checked.task_options(True, None), [])
    terms, layouts = None, [_AS_WRITTEN] * len(programs)
    if checked.named and not errors:
        terms, programs, layouts = _compile_batch(programs, options, checked, devices, errors)
    elif not errors:
        terms = common_terms(programs, options, checked, errors)
    if terms is None or errors:
        raise error_of_batch(errors, len(circuits))
    seeds = submission_options.item_seeds(
        options.get("seed"), len(circuits), options.get("idempotency_key")
    )
    shots = checked.shots
    return PreparedSubmit(
        terms,
        [
            TaskSpec(loaded.packed, shots, seed, b"", 0, 1, *places)
            for loaded, seed, places in zip(programs, seeds, layouts, strict=True)
        ],
    )


def _compile_batch(
    programs: list[PackedCircuit],
    options: BatchOptions,
    checked: CheckedOptions,
    devices: SubmitDevices | None,
    errors: list[SimenvError],
) -> tuple[TaskOptions | None, list[PackedCircuit], list[tuple[bytes, bytes]]]:
    """Compile circuits for their device; append to `errors` those that cannot be compiled.
    Observables are shared by all tasks of a call, so circuits with observables must end on the same
    qubits of the device."""
    terms = common_terms(programs, options, checked, errors)
    if errors or devices is None:
        return terms, programs, [_AS_WRITTEN] * len(programs)
    results: list[PackedCircuit] = []
    layouts: list[tuple[bytes, bytes]] = []
    replaced: set[str] = set()
    moved = compiler = None
    for index, loaded in enumerate(programs):
        try:
            checked, compiled = devices.prepared(checked, loaded)
            if compiled is None:
                task = checked.task
                terms = msgspec.structs.replace(terms, snapshot=task.snapshot, noise=task.noise)
                return terms, programs, [_AS_WRITTEN] * len(programs)
            observables = compiled.observables(terms.observables)
        except SimenvError as error:
            errors.append(of_item(error, index))
            continue
        compiler = compiled.compiler or compiler
        results.append(compiled.loaded)
        layouts.append(compiled.layouts)
        replaced.update(checked.task.replaced_gates)
        if moved is not None and observables != moved:
            text = "observables of circuits that end on other qubits of the device, in one call"
            errors.append(OptionError(text, hint="submit them one by one", index=index))
        moved = observables if moved is None else moved
    terms = msgspec.structs.replace(
        terms,
        observables=moved or (),
        snapshot=checked.task.snapshot,
        compiled=compiler or "",
        replaced_gates=tuple(sorted(replaced)),
    )
    return (None if errors else terms), results, layouts


def _is_sweep(work: Any) -> bool:
    """Return whether this is (circuit, parameter values), rather than several circuits."""
    if not isinstance(work, tuple) or len(work) != 2:
        return False
    values = work[1]
    return isinstance(values, Mapping | list | tuple) or hasattr(values, "__array__")


def _single_row(loaded: PackedCircuit, parameter_values: Any) -> Any:
    """Return the values of all slots of the single binding, float64 [1, slots]; None: it has
    none."""
    if parameter_values is None:
        if loaded.parameters:
            hint = "give parameter_values=, or bind them in the circuit"
            raise OptionError(unbound(loaded), hint=hint)
        return None
    rows = loaded.bind(parameter_values)
    if len(rows) != 1:
        hint = "submit_many((circuit, parameter_values)) gives one task for each"
        raise OptionError(f"{len(rows)} sets of parameter values for one task", hint=hint)
    return rows
