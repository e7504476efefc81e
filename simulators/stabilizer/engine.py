"""Stabilizer engine, its exact results, and its Pauli noise."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import stim
from msgspec.structs import replace
from numpy.typing import NDArray

from noise_models.channel import Channel
from simulators.catalog import builtin_card
from simulators.circuit.analysis import measurements
from simulators.circuit.gates import MEASURE
from simulators.circuit.ir import Circuit, bell
from simulators.circuit.noise import NoiseProgram
from simulators.engine import SAMPLED, Plan, Request, RunControl, RunOptions
from simulators.errors import OTHER_ENGINE, Unsupported
from simulators.execution import outputs, packing, philox, sampling
from simulators.execution.circuit_checks import plan_layouts
from simulators.execution.readout import ReadoutStage
from simulators.stabilizer.convert import NoiseLines, StimCircuit, convert

# Exact results of a stabilizer state: expectation values, and distributions of outcomes.
#
# The outcomes of measuring some qubits are uniform over an affine space: a base row, plus any sum
# of the generators. Circuits are in deferred form (`convert`), so the state is pure.

MAX_RANDOM_BITS = 21


def simulate(circuit: stim.Circuit) -> stim.TableauSimulator:
    """The final state of a circuit without measurements."""
    simulator = stim.TableauSimulator(seed=0)
    simulator.do_circuit(circuit)
    return simulator


def means(
    simulator: stim.TableauSimulator, strings: list[tuple[int, int]], num_qubits: int
) -> NDArray[np.float64]:
    """Expectation value of each Pauli string (x, z): -1, 0 or 1."""
    result = np.empty(len(strings))
    for number, (x, z) in enumerate(strings):
        pauli = stim.PauliString(num_qubits)
        support = x | z
        while support:
            qubit = (support & -support).bit_length() - 1
            support &= support - 1
            pauli[qubit] = _LETTER[(x >> qubit & 1) + 2 * (z >> qubit & 1)]
        result[number] = simulator.peek_observable_expectation(pauli)
    return result


_LETTER = {1: "X", 2: "Z", 3: "Y"}


def distribution(simulator: stim.TableauSimulator, source: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Possible outcomes [2**random bits, len(source)], equally likely. source[c]: the qubit read by
    bit c; -1 reads 0. Raises Unsupported for too many random bits."""
    wires = sorted(set(source[source >= 0].tolist()))
    base, random = _forced(simulator, wires, -1)
    if random > MAX_RANDOM_BITS:
        text = f"{random} outcome bits are random: 2^{random} outcomes; the limit is"
        text += f" 2^{MAX_RANDOM_BITS}"
        raise Unsupported(text, hint="ask for counts with shots instead of exact probabilities")
    rows = base[np.newaxis]
    for number in range(random):
        other, _ = _forced(simulator, wires, number)
        rows = np.concatenate((rows, rows ^ (base ^ other)))
    place = {wire: k for k, wire in enumerate(wires)}
    result = np.zeros((len(rows), source.size), np.uint8)
    for bit in np.flatnonzero(source >= 0).tolist():
        result[:, bit] = rows[:, place[int(source[bit])]]
    return result


def _forced(
    simulator: stim.TableauSimulator, wires: list[int], bit: int
) -> tuple[NDArray[np.uint8], int]:
    """Outcome with random bit `bit` 1 and all other random bits 0; and the number of random
    bits."""
    copy = simulator.copy()
    row = np.zeros(len(wires), np.uint8)
    random = 0
    for k, wire in enumerate(wires):
        value = copy.peek_z(wire)
        if value == 0:
            row[k] = random == bit
            copy.postselect_z(wire, desired_value=bool(row[k]))
            random += 1
        else:
            row[k] = value < 0
    return row, random


# Pauli noise as stim's instructions: PAULI_CHANNEL_1 and PAULI_CHANNEL_2 at each location.
#
# A channel that is no mixture of Paulis is refused, or twirled if the option requests it.

_LEAST = 1e-15  # smaller probabilities of errors are dropped


class PauliNoise(msgspec.Struct, frozen=True, eq=False):
    """Pauli noise of a circuit. Under a condition, stim has none: there a channel acts always, with
    its probabilities times that of the condition."""

    lines: NoiseLines  # without the noise under conditions
    under: dict[int, list[tuple[Channel, str]]]  # by operation: channels and their targets

    def of(
        self, circuit: Circuit, params: NDArray[np.float64], layout: measurements.MeasurementLayout
    ) -> NoiseLines:
        """All noise of a binding."""
        if not self.under:
            return self.lines
        ideal = convert(circuit, params, layout)
        sampler = ideal.circuit.compile_sampler(seed=0)
        records = sampler.sample(_PARITY_SHOTS)
        after = dict(self.lines.after)
        for place, channels in self.under.items():
            condition = ideal.conditions[place]
            parity = np.logical_xor.reduce(records[:, condition.controls], axis=1)
            holds = parity ^ condition.inverted
            # A parity of outcomes of a stabilizer state is certain, or both values are as likely.
            share = float(holds[0]) if (holds == holds[0]).all() else 0.5
            texts = [(_text(channel, share), where) for channel, where in channels]
            after[place] = [f"{text} {where}" for text, where in texts if text]
        return replace(self.lines, after=after)


_PARITY_SHOTS = 64  # a random parity has one value in all of them with probability 2^-63


def pauli_noise(
    circuit: Circuit, noise: NoiseProgram, flips: dict[int, float], *, twirl: bool
) -> PauliNoise:
    """Noise that follows each operation; that of -1 comes first. `flips`: of measurements before
    the end. Raises Unsupported for noise under a condition, but with `twirl`."""
    depth = measurements.branch_depth(circuit)
    texts = [_text(channel) for channel in noise.channels]
    entries: dict[int, list[str]] = {}
    under: dict[int, list[tuple[Channel, str]]] = {}
    lines: dict[tuple[int, str], str] = {}  # equal ones are one text: a circuit may have many
    for after, channel, first, second in noise.locations.tolist():
        if not texts[channel]:
            continue
        # In stim the first letter belongs to the first target; here the low digit does.
        where = f"{first}" if second < 0 else f"{second} {first}"
        if after >= 0 and depth[after]:
            if not twirl:
                hint = f"option twirl=1 takes the mean over the condition; {OTHER_ENGINE} exactly"
                raise Unsupported("noise under a condition: stim has none", hint=hint)
            under.setdefault(after, []).append((noise.channels[channel], where))
        else:
            line = lines.setdefault((channel, where), f"{texts[channel]} {where}")
            entries.setdefault(after, []).append(line)
    return PauliNoise(NoiseLines(entries, flips), under)


def _text(channel: Channel, share: float = 1.0) -> str:
    """Name and arguments of the instruction, with the probabilities times `share`; "" for a channel
    without errors."""
    probs = share * np.maximum(channel.pauli_probabilities, 0.0)
    probs = np.where(probs < _LEAST, 0.0, probs)[1:]
    if not probs.any():
        return ""
    probs *= min(1.0, 1.0 / probs.sum())
    return f"PAULI_CHANNEL_{channel.num_qubits}({', '.join(map(repr, probs.tolist()))})"


def recorded_flip(noise: NoiseProgram, qubit: int, operation: int, *, twirl: bool) -> float:
    """Probability that a measurement before the end records the wrong outcome. Raises Unsupported
    if it depends on the outcome, unless `twirl` requests the mean."""
    if noise.readout is None:
        return 0.0
    p01, p10 = noise.readout.flips(qubit, operation)
    if p01 != p10 and not twirl:
        hint = f"option twirl=1 takes the mean of both; {OTHER_ENGINE} exactly"
        text = f"readout error of qubit {qubit} that depends on the outcome, before the end"
        raise Unsupported(text, hint=hint)
    return 0.5 * (p01 + p10)


# Stabilizer engine: Clifford circuits of any width, through stim.
#
# Counts are sampled in blocks of shots with seeds of their own: they are the same on one version of
# stim and one processor family. Probabilities and expectation values are exact.

CARD = builtin_card("stabilizer")


class StabilizerEngine(outputs.EngineBase):
    """Engine for Clifford circuits. Whether a binding's angles give Clifford gates is checked at
    the run."""

    card = CARD

    def plan(self, circuit: Circuit, noise: NoiseProgram | None, options: RunOptions) -> Plan:
        """Prepare the layouts. Refuses noise that is no mixture of Paulis, unless the option
        `twirl` requests its twirl; non-Clifford gates are refused by `run`."""
        twirl = bool(self.card.value(options.settings, "twirl"))
        if noise is not None and twirl:
            channels = tuple(channel.twirled() for channel in noise.channels)
            kinds = noise.kinds - {"kraus"}
            noise = replace(noise, channels=channels, kinds=kinds, known_facts=None)
        layouts = plan_layouts(self.card, circuit, noise, options)
        if noise is None:
            return layouts
        clbits = measurements.measurement_layout(circuit, noise)
        rows = circuit.table.rows[circuit.ops]
        begins = np.cumsum(rows[:, 1]) - rows[:, 1]
        recorded = (rows[:, 0] == MEASURE) & (clbits.roles != measurements.TERMINAL)
        qubits = {k: int(circuit.qubits[begins[k]]) for k in np.flatnonzero(recorded).tolist()}
        flips = {k: recorded_flip(noise, qubit, k, twirl=twirl) for k, qubit in qubits.items()}
        paulis = pauli_noise(circuit, noise, flips, twirl=twirl)
        readout = ReadoutStage.of(clbits, noise.readout)
        return PauliNoisePlan(clbits, layouts.state, paulis, readout, twirl)

    def check(
        self, layouts: measurements.MeasurementLayouts, request: Request, options: RunOptions
    ) -> None:
        """Refuse all but counts and memory with noise."""
        del options
        others = set(request.outputs) - SAMPLED
        if isinstance(layouts, PauliNoisePlan) and others:
            hint = f"it samples alone; {OTHER_ENGINE}"
            text = f"{' and '.join(sorted(others))} of a circuit with noise, by engine 'stabilizer'"
            raise Unsupported(text, hint=hint)

    def final_state(self, run: outputs.BoundRun) -> outputs.FinalState:
        return _StabilizerState(run)

    def warm_up(self) -> None:
        options = RunOptions()
        request = Request(16, 1, self.card.outputs)
        self.run(self.plan(bell(), None, options), bell(), request, options, RunControl())


class PauliNoisePlan(measurements.MeasurementLayouts, frozen=True, eq=False):
    """Layouts of a circuit with noise, and the noise as stim's instructions."""

    paulis: PauliNoise
    readout: ReadoutStage | None
    twirled: bool

    @property
    def memory_bytes(self) -> int:
        texts = sum(len(line) for lines in self.paulis.lines.after.values() for line in lines)
        return super().memory_bytes + texts


class _StabilizerState(outputs.FinalState):
    """One binding; each output converts the circuit to the form it needs."""

    def __init__(self, run: outputs.BoundRun) -> None:
        self.num_qubits = run.circuit.num_qubits
        self._noise: PauliNoise | None = None
        if isinstance(run.layouts, PauliNoisePlan):
            self._noise, self.readout = run.layouts.paulis, run.layouts.readout
            self.remark = "noise twirled to Paulis" if run.layouts.twirled else ""
        self._layouts = run.layouts
        self._circuit = run.circuit
        self._params = run.params
        self._control = run.control

    def _deferred(self, layout: measurements.MeasurementLayout) -> StimCircuit:
        return convert(self._circuit, self._params, layout, deferred=True)

    def sample(self, shots: int, key: outputs.SeedKey) -> Iterator[outputs.Batch]:
        layout = self._layouts.clbits
        noise = None
        if self._noise is not None:
            noise = self._noise.of(self._circuit, self._params, layout)
        converted = convert(self._circuit, self._params, layout, noise=noise)
        reference = converted.circuit.reference_sample()
        for seed, wanted in philox.blocks(shots, *key, self._control):
            # Always a full block: stim's random numbers depend on how many shots it makes.
            sampler = converted.circuit.compile_sampler(seed=seed, reference_sample=reference)
            packed = sampler.sample(philox.BLOCK_SHOTS, bit_packed=True)[:wanted]
            yield packing.select(packed, converted.source, converted.identical), None

    def probabilities(self) -> sampling.Distribution:
        if self._layouts.clbits.measures:
            converted = self._deferred(self._layouts.clbits)
            source = converted.source
        else:
            converted = self._deferred(self._layouts.state)
            source = np.arange(self.num_qubits)
        bits = distribution(simulate(converted.circuit), source)
        records, counts = packing.tally(packing.select_bits(bits, np.arange(source.size)))
        return records, counts / len(bits)

    def expectations(self, strings: outputs.PauliStrings) -> NDArray[np.float64]:
        simulator = simulate(self._deferred(self._layouts.state).circuit)
        return means(simulator, strings, self.num_qubits)
