"""A device and its noise at admission: limits of programs, and the cost of their noise.

Imports numpy and `simulators`. Used from the loop's thread and from the one that checks programs.
"""

from __future__ import annotations

import threading
from functools import cached_property

import msgspec
import numpy as np

from noise_models.calibration import CalibrationSnapshot
from noise_models.document import Document
from noise_models.strict_json import NoiseError
from simenv.errors import InfeasibleError, SimenvError
from simenv.model import DeviceInfo, Program, TaskOptions, TaskSpec
from simenv.model.availability import Availability
from simenv.service import program_rules
from simenv.service.devices import noise_api
from simenv.service.devices.registry import EmulatedDevice
from simenv.wire.messages.explain import NoiseUse
from simulators.chain.trial import with_sizes
from simulators.circuit import device_check
from simulators.circuit.analysis.fit_scope import acting
from simulators.circuit.analysis.measurements import has_conditional_noise
from simulators.circuit.analysis.noise_profile import needs_branching, noise_profile
from simulators.circuit.analysis.profile import NoiseProfile, Profile
from simulators.circuit.analysis.profiler import with_networks
from simulators.circuit.device_check import DeviceLimits
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.attach_noise import NoiseAttachment
from simulators.circuit.passes.shot_times import ShotTimes, has_free_delays, with_bound_delays
from simulators.circuit.passes.unrolled import blocks_left, unrolled
from simulators.compiler.kernel import kernels
from simulators.errors import EngineError

_DELAY = 1_000.0  # ns or dt: of a delay whose duration each binding gives, for the choice of engine


class _DeviceNoise(msgspec.Struct, frozen=True):
    """Noise of one calibration, and the durations of a device with it; None: of no device."""

    attachment: NoiseAttachment
    times: ShotTimes | None


class DeviceContext:
    """One device with one set of noise options; built once for the tasks that share them."""

    def __init__(
        self,
        device: DeviceInfo | None,
        source: EmulatedDevice,
        terms: TaskOptions,
        *,
        is_optional: bool = False,
    ) -> None:
        """`device`: None for a noise model alone. `source`: the device with the noise document.
        `terms`: with the noise options; they are not kept, as their observables may be large.
        `is_optional`: another device may run the circuit. Raises OptionError."""
        self.is_loaded = False  # a check of a circuit may load modules, or compile kernels
        self.max_shots = 0 if device is None else device.max_shots
        self._device = device
        self._document, self._options = source.document, terms.noise
        self._analog = getattr(source.document, "analog", None)
        self._fitted = None if self._analog else self._of(source.document)
        self._lock = threading.Lock()  # of attachments
        self._is_optional = is_optional
        # Names of gates whose angles are limited, as a packed program has them.
        self._limited = tuple(each.gate.encode() for each in device.angle_limits) if device else ()

    def _of(self, document: Document) -> _DeviceNoise:
        """Noise of a calibration. Raises OptionError."""
        attachment = NoiseAttachment(noise_api.model_of(document, self._options))
        if self._device is None or not isinstance(document, CalibrationSnapshot):
            return _DeviceNoise(attachment, None)
        return _DeviceNoise(attachment, ShotTimes(document))

    @cached_property
    def _before_fit(self) -> _DeviceNoise:
        """Noise of circuits outside the scope of a fit."""
        assert isinstance(self._document, CalibrationSnapshot)
        assert self._document.outside is not None
        return self._of(self._document.outside)

    @cached_property
    def _limits(self) -> DeviceLimits | None:
        if self._device is None:
            return None
        info = Availability(self._device).with_fractional
        available = Availability(info)
        return DeviceLimits(
            info.name,
            info.num_qubits,
            {
                **{gate.name: gate.qubits for gate in info.gates},
                **dict.fromkeys(available.measurements, 1),
            },
            available.codes(),
            available.problem,
            info.dynamic,
            {each.gate: each.bounds_rad for each in info.angle_limits},
        )

    def limits_angles(self, packed: bytes) -> bool:
        """Return whether a packed program may have gates whose angles are limited, so that each
        task's own values matter. Those of an optional device are checked with the circuit alone."""
        return not self._is_optional and any(name in packed for name in self._limited)

    def check_angles(self, program: Program, spec: TaskSpec) -> None:
        """Raise InfeasibleError for an angle of a task outside the device's limits. `program`: that
        of the task; its slots have the values of each binding."""
        limits = self._limits
        if limits is None:
            return
        values = np.frombuffer(spec.bindings, np.float64)
        bindings = values.reshape(spec.count, program.num_slots) if program.num_slots else None
        circuit = Circuit.from_program(program)
        problem, hint = device_check.beyond_limits(circuit, limits, bindings)
        if problem:
            raise InfeasibleError(problem, hint=hint)

    @property
    def atoms_noise(self) -> NoiseUse | None:
        """The noise of sequences on a device of atoms; None: it runs circuits. Raises
        OptionError."""
        analog = self._analog
        return None if analog is None else noise_api.atoms_noise(analog, self._options)

    def timed(self, profile: Profile) -> Profile:
        """Return the profile of a call with the times of a device of atoms; of others as it is."""
        if self._analog is None or self._device is None or self._device.analog is None:
            return profile
        timing = self._device.analog
        noise = NoiseProfile(
            device_shot_ns=timing.shot_ns + profile.operations,
            device_overhead_ns=timing.overhead_ns,
        )
        return msgspec.structs.replace(profile, noise=noise)

    def examined(self, circuit: Circuit, profile: Profile, terms: TaskOptions) -> Profile:
        """Return the profile with that of the circuit's noise, and with the sizes of what runs that
        price it. For a circuit that the device cannot execute unchanged, raises InfeasibleError, or
        returns those without noise if the device is optional. `terms`: with the outputs and
        observables of the task."""
        program: NoiseProgram | None = None
        try:
            profile, circuit, program = self._with_noise(circuit, profile, terms)
        except InfeasibleError:
            if not self._is_optional:
                raise
            circuit, _ = unrolled(circuit)
        if profile.noise is None or not profile.noise.kinds:  # contractions take no noise
            profile = with_networks(profile, circuit)
        sums = program_rules.pauli_sums(terms)
        return with_sizes(
            profile, circuit, terms.outputs, sums, terms.engine, terms.options, program
        )

    def _with_noise(
        self, circuit: Circuit, profile: Profile, terms: TaskOptions
    ) -> tuple[Profile, Circuit, NoiseProgram]:
        """The profile with that of the noise, and what the circuit needs because of it: branching,
        and loops that stay; the circuit and its noise as they run."""
        self._check(circuit, profile)
        too_wide = self._too_wide(circuit)
        if too_wide is not None:
            raise too_wide
        try:
            with self._lock:
                outside = acting(self._document, circuit).outside
                assert self._fitted is not None  # a device of atoms examines no circuits
                device = self._before_fit if outside else self._fitted
                if is_free := has_free_delays(circuit):
                    circuit = with_bound_delays(circuit, np.full(circuit.num_slots, _DELAY))
                program = device.attachment.attach(circuit)
            circuit, attached = unrolled(program.located(circuit), program)
            program = program if attached is None else attached
            labels = tuple(program_rules.labels(terms))
            noise = noise_profile(program, circuit, terms.outputs, labels)
            branches = profile.mid_circuit
            if not branches and needs_branching(program, circuit, terms.outputs, labels):
                branches = True
                self._check(circuit, msgspec.structs.replace(profile, mid_circuit=True))
            if profile.conditions and has_conditional_noise(circuit, program):
                noise = msgspec.structs.replace(noise, conditional=True)
            if outside:
                noise = msgspec.structs.replace(noise, outside_fit=outside)
            if device.times is not None:
                noise = msgspec.structs.replace(
                    noise,
                    device_shot_ns=device.times.shot_ns(
                        circuit, duration_ns=-1.0 if is_free else program.duration_ns
                    ),
                    device_overhead_ns=device.times.overhead_ns,
                )
        except (EngineError, NoiseError) as error:
            raise InfeasibleError(f"noise: {error.message}", hint=error.hint) from error
        if not self.is_loaded:  # other circuits need further kernels
            self.is_loaded = all(each.is_stored for each in kernels("attachment"))
        loops = blocks_left(circuit) if circuit.conditions_data else 0
        profile = msgspec.structs.replace(profile, noise=noise, mid_circuit=branches, loops=loops)
        return profile, circuit, program

    def _check(self, circuit: Circuit, profile: Profile) -> None:
        """Raise InfeasibleError for a circuit that the device does not execute unchanged."""
        if self._limits is not None:
            problem, hint = device_check.refusal(circuit, profile, self._limits)
            if problem:
                raise InfeasibleError(problem, hint=hint)

    def _too_wide(self, circuit: Circuit) -> SimenvError | None:
        assert self._fitted is not None
        max_qubits = self._fitted.attachment.model.num_qubits
        if not max_qubits or circuit.num_qubits <= max_qubits:
            return None
        text = f"the circuit has {circuit.num_qubits} qubits; the noise model has {max_qubits}"
        return InfeasibleError(text, hint="a noise model for so many qubits")
