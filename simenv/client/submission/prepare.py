"""Conversion of circuits, parameter values and options to messages. All errors of a batch are found
before a message is sent.

A circuit object that is given several times in one call is packed once. A sweep is split into tasks
as a function of its circuit and options alone: a repeat of the call with the same idempotency key
is split in the same places. The split does not change counts: a binding's random key is its index
in the whole sweep.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from simenv.client.circuits import PackedCircuit, load
from simenv.client.devices.choice import SubmitDevices
from simenv.client.submission.options import (
    DEFAULTS,
    BatchOptions,
    CheckedOptions,
    SubmitOptions,
    check_names,
    checked_binding,
    checked_options,
    checked_seed,
    is_single_seed,
    item_seeds,
    sweep_seeds,
)
from simenv.client.submission.sweep_size import bindings_per_task
from simenv.client.submission.terms import (
    common_terms,
    of_item,
    terms_of,
    unbound,
    with_chain,
)
from simenv.errors import OptionError, SimenvError
from simenv.model import TaskOptions, TaskSpec
from simenv.model.task_rules import checked_key
from simenv.wire.refusals import error_of_batch

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
    checked = _checked(options)
    values = options.get("parameter_values")
    checked, loaded, layouts, terms = _loaded(circuit, options, checked, devices)
    row = _single_row(loaded, values)
    terms = with_chain(terms, loaded, values)
    spec = TaskSpec(
        loaded.packed,
        checked.shots,
        checked_seed(options.get("seed"), options.get("idempotency_key")),
        row,
        checked_binding(options.get("binding_index", 0)),
        1,
        *layouts,
    )
    return PreparedSubmit(terms, [spec], single=True)


def _loaded(
    circuit: Any,
    options: SubmitOptions | BatchOptions,
    checked: CheckedOptions,
    devices: SubmitDevices | None,
) -> tuple[CheckedOptions, PackedCircuit, tuple[bytes, bytes], TaskOptions]:
    """Pack the circuit, compiled for the device of its options if they have one. Return the new
    options, the circuit, its layouts, and the options that are sent. Raises SimenvError."""
    loaded, compiled = load(circuit), None
    if checked.named and devices is not None:
        checked, compiled = devices.prepared(checked, loaded)
    terms = terms_of(loaded, options, checked)
    if compiled is None:
        return checked, loaded, _AS_WRITTEN, terms
    moved = compiled.observables(terms.observables)
    return (
        checked,
        compiled.loaded,
        compiled.layouts,
        msgspec.structs.replace(terms, observables=moved),
    )


def prepare_many(
    work: Any, options: BatchOptions, devices: SubmitDevices | None = None
) -> PreparedSubmit:
    """Check and pack several circuits, a sweep or several sweeps; see `Client.submit_many`."""
    check_names(options, BatchOptions)
    shots: Any = options.get("shots", DEFAULTS["shots"])
    if isinstance(work, list) and work and all(map(_is_sweep, work)):
        return _prepare_sweeps(work, shots, options, devices)
    if isinstance(shots, Sequence):
        raise OptionError(
            f"shots={shots!r:.80}", hint="one number; several go with a list of sweeps, one each"
        )
    checked = _checked(options)
    if _is_sweep(work):
        circuit, values = work
        return _sweep(circuit, values, options, checked, devices)
    if isinstance(work, str | bytes) or not isinstance(work, Iterable) or hasattr(work, "qubits"):
        raise OptionError(
            f"submit_many wants several circuits, got one {type(work).__name__}",
            hint="submit(circuit); or submit_many((circuit, parameter_values)) for a sweep",
        )
    return _prepare_batch(list(work), options, checked, devices)


def prepare_question(
    circuit: Any, options: SubmitOptions, devices: SubmitDevices | None = None
) -> tuple[PackedCircuit, TaskOptions, int, int]:
    """Return the content of an Explain request: the circuit, its parameters bound or not, the
    options, shots and the number of bindings."""
    checked = _checked(options)
    checked, loaded, _, terms = _loaded(circuit, options, checked, devices)
    values = options.get("parameter_values")
    count = 1 if values is None else len(loaded.bind(values))
    return loaded, terms, checked.shots, count


def _checked(options: SubmitOptions | BatchOptions) -> CheckedOptions:
    """Check the options that all tasks of a call share."""
    key = options.get("idempotency_key")
    if key is not None:
        checked_key(key)
    if options.get("decoder") is not None:
        raise OptionError(
            f"decoder={options.get('decoder')!r:.80}",
            hint="circuits of stim with detectors are decoded, by `submit` and `run`",
        )
    return checked_options(options)


def _sweep(
    circuit: Any,
    values: Any,
    options: BatchOptions,
    checked: CheckedOptions,
    devices: SubmitDevices | None,
) -> PreparedSubmit:
    """Prepare a sweep: one binding for each set of parameter values, sent as few tasks."""
    checked, loaded, layouts, terms = _loaded(circuit, options, checked, devices)
    rows = loaded.bind(values)
    terms = with_chain(terms, loaded, values)
    seed = options.get("seed")
    seeds = sweep_seeds(seed, len(rows), options.get("idempotency_key"))
    packed, shots, total = loaded.packed, checked.shots, len(rows)
    each = 1
    if is_single_seed(seed) and rows.shape[1]:
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


def _prepare_sweeps(
    sweeps: Sequence[tuple[Any, Any]],
    shots: Any,
    options: BatchOptions,
    devices: SubmitDevices | None,
) -> PreparedSubmit:
    """Prepare sweeps that share all options except shots and seeds.

    Raises BatchRefusedError, which names every bad one.
    """
    key = options.get("idempotency_key")
    seeds = item_seeds(options.get("seed"), len(sweeps), key)
    each = shots if isinstance(shots, Sequence) else [shots] * len(sweeps)
    if len(each) != len(sweeps):
        raise OptionError(
            f"{len(each)} numbers of shots for {len(sweeps)} sweeps", hint="one each, or one"
        )
    parts: list[PreparedSubmit] = []
    errors: list[SimenvError] = []
    for index, (circuit, values) in enumerate(sweeps):
        sweep_options: BatchOptions = {**options, "seed": seeds[index], "shots": each[index]}
        try:
            parts.append(_sweep(circuit, values, sweep_options, _checked(sweep_options), devices))
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
    first_index: dict[int, int] = {}  # by object: repeated circuits are packed once
    errors: list[SimenvError] = []
    programs: list[PackedCircuit] = []
    for index, circuit in enumerate(circuits):
        first = first_index.setdefault(id(circuit), index)
        if first != index and not errors:
            programs.append(programs[first])
            continue
        try:
            loaded = load(circuit)
            if loaded.parameters:
                raise OptionError(
                    unbound(loaded), hint="submit_many((circuit, parameter_values)) binds one"
                )
            programs.append(loaded)
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
    seeds = item_seeds(options.get("seed"), len(circuits), options.get("idempotency_key"))
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
    qubits of the device.
    """
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


def _single_row(loaded: PackedCircuit, parameter_values: Any) -> bytes:
    """Return the values of all slots of the single binding, as they are sent."""
    if parameter_values is None:
        if loaded.parameters:
            raise OptionError(
                unbound(loaded), hint="give parameter_values=, or bind them in the circuit"
            )
        return b""
    rows = loaded.bind(parameter_values)
    if len(rows) != 1:
        raise OptionError(
            f"{len(rows)} sets of parameter values for one task",
            hint="submit_many((circuit, parameter_values)) gives one task for each",
        )
    return rows.tobytes()
