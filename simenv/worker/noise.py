"""Noise of tasks in a worker: documents from the service, their models, and programs with noise.

A model is built once for each document and noise options, a noise program once for each structure.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

from simenv.model import NO_GATES, DeviceRecord, NoiseFactors, Program, TaskOptions
from simenv.model.devices import device_time_ns, wall_clock_s
from simenv.model.task import STALE
from simenv.wire.messages.worker import AssignedTask, NoiseDocument
from simenv.worker.noise_warnings import outside_fit, unused_channels
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.errors import Unsupported

if TYPE_CHECKING:
    from noise_models.document import Document
    from simulators.circuit.passes.attach_noise import NoiseAttachment
    from simulators.circuit.passes.durations import ShotTimes

MAX_MODELS = 32
MAX_PROGRAMS = 256
_DELAYS = frozenset({"delay", "delay_dt"})  # their durations may be parameters


class Noise:
    """Caches of noise documents, models and programs. Used from the main thread."""

    def __init__(self) -> None:
        self._bodies: dict[str, bytes] = {}
        self._documents: dict[str, Document] = {}
        self._models: OrderedDict[tuple[str, NoiseFactors], NoiseAttachment] = OrderedDict()
        self._programs: OrderedDict[tuple[bytes, bytes], NoiseProgram] = OrderedDict()
        self._limited: dict[tuple[str, NoiseFactors], tuple[str, ...]] = {}
        self._times: dict[str, ShotTimes] = {}  # by snapshot
        self._shots_ns: OrderedDict[tuple[bytes, str], float] = OrderedDict()

    def receive(self, message: NoiseDocument) -> None:
        """Store a document for later chunks, which name it by its digest."""
        if message.alone:
            self._bodies.clear()
            self._documents.clear()
        self._bodies[message.digest] = message.body

    def program(
        self, program: Program, circuit: Circuit, terms: TaskOptions
    ) -> NoiseProgram | None:
        """Return the noise program of a circuit under these options; None if no noise acts on it.
        Raises Unsupported, NoiseError."""
        from simulators.circuit.passes import attach_noise

        attachment = self._attachment(terms)
        times_are_parameters = attach_noise.depends_on_params(circuit)
        key = (
            program.digest if times_are_parameters else program.structure,
            attachment.model.digest,
        )
        result = self._programs.get(key)
        if result is None:
            result = self._programs[key] = attachment.attach(circuit)
            if len(self._programs) > MAX_PROGRAMS:
                self._programs.popitem(last=False)
        else:
            self._programs.move_to_end(key)
        return result if result.kinds else None

    def record(self, program: Program, assigned: AssignedTask, terms: TaskOptions) -> DeviceRecord:
        """Return the description of a task's device for its result."""
        document = self._document(terms.snapshot)
        ops = np.frombuffer(program.ops, np.uint16)
        rows = np.bincount(ops, minlength=len(program.names)).tolist()
        gates: dict[str, int] = {}
        for name, count in zip(program.names, rows, strict=True):
            if count and name not in NO_GATES:
                gates[name] = gates.get(name, 0) + count
        return DeviceRecord(
            terms.device,
            terms.snapshot,
            wall_clock_s(getattr(document, "calibrated", "")),
            terms.noise,
            terms.compiled,
            assigned.layout,
            tuple(sorted(gates.items())),
            assigned.initial_layout,
            self._warnings(document, program, terms),
            terms.stale == STALE,
        )

    def device_ns(
        self, program: Program, circuit: Circuit, assigned: AssignedTask, terms: TaskOptions
    ) -> int:
        """Time of a task on its device in ns; 0 without a device, for exact results, and for a
        noise document that is not a calibration."""
        times = self._shot_times(terms)
        if times is None or not assigned.shots:
            return 0
        if not _DELAYS.isdisjoint(program.names):
            values = np.frombuffer(assigned.bindings, np.float64).reshape(assigned.count, -1)
            rows = values if program.num_slots else [None] * assigned.count
            total_ns = sum(times.shot_ns(circuit, row) for row in rows)
            return device_time_ns(assigned.shots, assigned.count, times.overhead_ns, total_ns)
        key = (program.structure, terms.snapshot)
        shot_ns = self._shots_ns.get(key)
        if shot_ns is None:
            model = self._attachment(terms).model.digest
            noise = self._programs.get((program.structure, model))
            noise_ns = -1.0 if noise is None else noise.duration_ns
            shot_ns = self._shots_ns[key] = times.shot_ns(circuit, duration_ns=noise_ns)
            if len(self._shots_ns) > MAX_PROGRAMS:
                self._shots_ns.popitem(last=False)
        count = assigned.count
        return device_time_ns(assigned.shots, count, times.overhead_ns, count * shot_ns)

    def _shot_times(self, terms: TaskOptions) -> ShotTimes | None:
        """Return the durations of the task's device; None if they are not known."""
        result = self._times.get(terms.snapshot)
        if result is None and terms.device:
            from noise_models.calibration import CalibrationSnapshot
            from simulators.circuit.passes.durations import ShotTimes

            document = self._document(terms.snapshot)
            if not isinstance(document, CalibrationSnapshot):
                return None
            if len(self._times) >= MAX_MODELS:
                self._times.clear()
            result = self._times[terms.snapshot] = ShotTimes(document)
        return result

    def _warnings(
        self, document: Document, program: Program, terms: TaskOptions
    ) -> tuple[str, ...]:
        """Return warnings about requested noise that does not act as its numbers say, and about
        noise that was fitted to other circuits."""
        from noise_models.custom import CustomModel

        if isinstance(document, CustomModel):
            circuit = Circuit.from_program(program)
            acts = self.program(program, circuit, terms) is not None
            return unused_channels(document, program, terms, acts=acts)
        scope = document.fitted
        outside = () if scope is None else outside_fit(scope, program, terms.name)
        if not terms.noise:
            return outside
        key = (terms.snapshot, terms.noise)
        result = self._limited.get(key)
        if result is None:
            from noise_models.limits import limited

            if len(self._limited) >= MAX_MODELS:
                self._limited.clear()
            result = self._limited[key] = limited(self._attachment(terms).model)
        return result + outside

    def _document(self, digest: str) -> Document:
        result = self._documents.get(digest)
        if result is None:
            from noise_models import document

            body = self._bodies.get(digest, b"")
            if not body:
                raise Unsupported(
                    f"the noise document {digest[:16]} is not here", hint="submit the task again"
                )
            result = self._documents[digest] = document.load(body)
        return result

    def _attachment(self, terms: TaskOptions) -> NoiseAttachment:
        key = (terms.snapshot, terms.noise)
        result = self._models.get(key)
        if result is None:
            from noise_models import document
            from noise_models.options import NoiseOptions
            from simulators.circuit.passes.attach_noise import NoiseAttachment

            options = NoiseOptions.parse(terms.noise)
            model = document.model(self._document(terms.snapshot), options)
            result = self._models[key] = NoiseAttachment(model)
            if len(self._models) > MAX_MODELS:
                self._models.popitem(last=False)
        return result
