"""A device of logical qubits from the calibration of a chip.

Memory experiments and transversal CX of a code run on a pool, with the chip's noise, and are
decoded there. The error rates become an ordinary calibration snapshot. `Encoder` decides which
experiments are needed and what follows from them; `encode` runs them, and stores the device under
the digest of all that it depends on.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import stim

from noise_models import snapshot as snapshots
from noise_models.calibration import CalibrationSnapshot
from noise_models.strict_json import NoiseError
from simenv import _version, config, files
from simenv.calibration.logical.device import LogicalErrors, logical_snapshot
from simenv.calibration.logical.distances import Distances
from simenv.calibration.logical.experiments import (
    LONG,
    ClientRunner,
    Run,
    gate_experiments,
    measured_flips,
    memories,
    memory_experiments,
    patch_of,
)
from simenv.calibration.logical.options import EncodeOptions
from simenv.calibration.logical.patch_chip import Place, patch_chip, places, selected
from simenv.calibration.logical.surface_code import rotated
from simenv.errors import OptionError
from simulators.catalog.decoders import decoder_cards
from simulators.stabilizer.decoders import named_decoder

if TYPE_CHECKING:
    from simenv.client.client import Client

MAX_PATCHES = 16  # whose errors are sampled; further qubits have those of these in turn
MAX_GATE_PAIRS = 3  # neighbours whose CX is sampled; other pairs have the mean
STORED = 100  # devices that are kept
FORMAT = 3  # of stored devices


class Encoded(msgspec.Struct, frozen=True):
    """A logical device, what is to be said about it, and its cost."""

    snapshot: CalibrationSnapshot
    warnings: tuple[str, ...]
    experiments: int
    seconds: float
    stored: bool = False  # read from the store: no experiment ran


class _StoredDevice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    snapshot: CalibrationSnapshot
    warnings: tuple[str, ...]
    experiments: int


class Encoder:
    """Experiments of one logical device, and its snapshot."""

    def __init__(self, chip: CalibrationSnapshot, options: EncodeOptions, run: Run) -> None:
        """Find places of the patches. Raises OptionError for a device that is no chip, and for a
        chip that has no places, if drawn values are not allowed, or no values to draw."""
        check_chip(chip)
        self._chip, self._options, self._run = chip, options, run
        self._selected = selected(chip)
        self._code = rotated(options.distance)
        self._patches = min(options.qubits, MAX_PATCHES)
        self.warnings: list[str] = []
        self._placed: list[Place] = []
        if options.placement != "drawn":
            self._placed = places(self._selected, self._code, self._patches)
            if len(self._placed) < self._patches:
                self._report_drawn()
        patches = patch_chip(self._selected, self._code, self._placed, self._patches, options.seed)
        self._on = [patch_of(patches, self._code, number) for number in range(self._patches)]

    def snapshot(self, name: str) -> CalibrationSnapshot:
        """Run the experiments, and return the snapshot. Raises SimenvError."""
        code, options = self._code, self._options
        count = min(self._patches - 1, MAX_GATE_PAIRS) if options.cx == "transversal" else 0
        pairs = [(k, k + 1) for k in range(count)]
        own = memory_experiments(code, self._on, options.decoder)
        by = options.gates_decoded_by
        # Errors of CX are those that memories with the same decoder do not explain.
        beside = memory_experiments(code, self._on[: count + 1 if count else 0], by)
        beside = beside if by != options.decoder else []
        gates = gate_experiments(code, [(self._on[a], self._on[b]) for a, b in pairs], by)
        outcomes = self._run([*own, *beside, *gates])
        of_gates = outcomes[len(own) + len(beside) :]
        sampled = memories(code, outcomes[: len(own)])
        rates, pooled = sampled.rates(), sampled.pooled()
        known = memories(code, outcomes[len(own) :][: len(beside)]).rates() if beside else rates
        distances = Distances(self._selected, self._on[0], options, sampled, self._run)
        factors = distances.suppression()
        is_extrapolated = False
        if all(each.resolved for each in pooled.values()):
            flips = measured_flips(of_gates, pairs, known, code.distance)
        else:
            error, is_extrapolated = distances.extrapolated()
            rates = [error for _ in rates]
            pairs = pairs[:1]
            flips = [distances.scaled_flips(error) for _ in pairs]
            self._report_unresolved(is_extrapolated)
        if lost := distances.lost():
            self._report_lost(lost)
        elif factors is not None and min(factors) < 1.0:
            self._report_threshold(factors)
        errors = LogicalErrors(
            tuple(rates), tuple(zip(pairs, flips, strict=True)), sampled.round_ns, factors,
            is_extrapolated, tuple(self._placed),
        )  # fmt: skip
        result, limited = logical_snapshot(name, self._chip, options, errors, code.num_qubits)
        if limited:
            self.warnings.append(
                f"{limited} of {self._patches} patches have errors of Z below half of those of X:"
                " T2 = 2 T1 says half"
            )
        return result

    def _report_drawn(self) -> None:
        d, size, count = self._options.distance, self._code.num_qubits, len(self._placed)
        text = f"device {self._chip.name} holds {count} of {self._patches} patches of distance {d},"
        text += f" each {size} qubits of a square lattice"
        if self._options.placement == "chip":
            hint = "fewer qubits, a smaller distance, or placement='auto', which draws values"
            raise OptionError(text, hint=hint)
        self.warnings.append(f"{text}: the others have values drawn from its qubits and pairs")

    def _report_unresolved(self, extrapolated: bool) -> None:
        text = f"{self._options.shots} shots have too few errors at distance"
        text += f" {self._options.distance}: "
        text += "extrapolated by Lambda from smaller ones" if extrapolated else "upper limits"
        self.warnings.append(text)

    def _report_lost(self, distances: tuple[int, ...]) -> None:
        rounds = " and ".join(f"{LONG * d} rounds of distance {d}" for d in distances)
        text = f"device {self._chip.name} is above the threshold of the code with this decoder:"
        text += f" nothing is left of a logical qubit after {rounds}, so that Lambda is not"
        self.warnings.append(f"{text} measurable; its errors are lower limits")

    def _report_threshold(self, factors: tuple[float, float]) -> None:
        text = f"device {self._chip.name} is above the threshold of the code with this decoder:"
        text += f" Lambda is {factors[0]:.2f} for X and {factors[1]:.2f} for Z,"
        self.warnings.append(f"{text} so that a larger distance has more errors")


def encode(
    client: Client,
    chip: CalibrationSnapshot,
    name: str = "logical",
    options: EncodeOptions | None = None,
    *,
    store: Path | None = None,
    fresh: bool = False,
    **values: Any,
) -> Encoded:
    """Make a device of logical qubits from the calibration of a chip.

    Args:
        client: environment whose workers sample and decode; they need stim and the decoder.
        chip: calibration of the chip, as `noise_models.library.load` returns it.
        name: name of the device.
        store: folder of devices that were made before; None: `logical` in SIMENV_HOME.
        options: code, distance, decoder and others; or give them by name as `values`.
        fresh: run the experiments even if the device is stored.

    Raises OptionError, and what a task raises.
    """
    options = checked_options(values) if options is None else options
    found = None if fresh else stored_device(chip, name, options, store=store)
    if found is not None:
        return found
    begun = time.monotonic()
    runner = ClientRunner(client, options.shots, options.seed)
    encoder = Encoder(chip, options, runner)
    snapshot = encoder.snapshot(name)
    snapshots.check(snapshot)
    stored = _StoredDevice(FORMAT, snapshot, tuple(encoder.warnings), runner.experiments)
    _write(device_path(chip, options, store), stored)
    seconds = time.monotonic() - begun
    return Encoded(snapshot, stored.warnings, runner.experiments, seconds)


def stored_device(
    chip: CalibrationSnapshot, name: str, options: EncodeOptions, *, store: Path | None = None
) -> Encoded | None:
    """Return the device if it was made before; else None. See `encode`."""
    check_chip(chip)
    begun = time.monotonic()
    found = _read(device_path(chip, options, store))
    if found is None:
        return None
    snapshot = msgspec.structs.replace(found.snapshot, name=name)
    return Encoded(snapshot, found.warnings, 0, time.monotonic() - begun, stored=True)


def check_chip(chip: CalibrationSnapshot) -> None:
    """Raise OptionError for a device whose qubits are not those of one chip."""
    if chip.logical is not None:
        text = f"device {chip.name}: its qubits are logical already, of {chip.logical.chip}"
        hint = f"encode {chip.logical.chip}, with a larger distance for fewer errors"
        raise OptionError(text, hint=hint)
    if chip.modules:
        count = len(chip.modules)
        text = f"device {chip.name}: {count} linked QPUs, and patches lie on one"
        raise OptionError(text, hint="encode the device of one of its QPUs")


def checked_options(options: Mapping[str, Any]) -> EncodeOptions:
    """Return the options of `encode` as a struct. Raises OptionError."""
    unknown = sorted(set(options) - set(EncodeOptions.__struct_fields__))
    if unknown:
        hint = f"known: {', '.join(EncodeOptions.__struct_fields__)}"
        raise OptionError(f"encode has no option {unknown[0]!r:.60}", hint=hint)
    try:
        return msgspec.convert(dict(options), EncodeOptions)
    except msgspec.ValidationError as error:
        raise OptionError(f"encode: {error}", hint="see simenv devices encode --help") from error


def device_path(chip: CalibrationSnapshot, options: EncodeOptions, store: Path | None) -> Path:
    """Return the file of a device, by the digest of all that it depends on, but its name: also of
    this build, and of stim and the decoders as they are installed here."""
    values = (FORMAT, _build(), _versions(options), chip.digest, options)
    digest = hashlib.sha256(msgspec.json.encode(values, order="deterministic")).hexdigest()
    return (config.home_root() / "logical" if store is None else store) / f"{digest}.json"


def _versions(options: EncodeOptions) -> list[str]:
    """Return stim and the decoders, each with its version."""
    names = {options.decoder, options.gates_decoded_by}
    cards = [card for card in decoder_cards() if card.name in names]
    return [f"stim {stim.__version__}", *(named_decoder(card) for card in cards)]


_build = functools.cache(_version.build)  # asks git in a checkout


def _read(path: Path) -> _StoredDevice | None:
    """Return a stored device; None if there is none that can be read."""
    try:
        stored = msgspec.json.decode(path.read_bytes(), type=_StoredDevice)
        snapshots.check(stored.snapshot)
    except (OSError, msgspec.MsgspecError, NoiseError):
        return None
    return stored if stored.format == FORMAT else None


def _write(path: Path, stored: _StoredDevice) -> None:
    """Store a device, and remove the oldest ones beyond STORED."""
    files.private_folder(path.parent)
    files.write_atomic(path, msgspec.json.encode(stored))
    entries = sorted(path.parent.glob("*.json"), key=lambda each: each.stat().st_mtime)
    for old in entries[:-STORED]:
        old.unlink(missing_ok=True)
