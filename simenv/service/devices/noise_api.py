"""The functions of `noise_models` that the service uses: noise documents and the device library.

Imports numpy. This module converts errors of `noise_models` to errors of simenv.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec

from noise_models import atoms, document, library, linked
from noise_models.atoms import AnalogCalibration
from noise_models.calibration import CalibrationSnapshot
from noise_models.document import Document
from noise_models.linked import MachineDesign
from noise_models.model import NoiseModel
from noise_models.options import NoiseOptions
from noise_models.strict_json import NoiseError
from simenv.errors import OptionError
from simenv.model.devices import CalibrationSource
from simenv.wire.messages.explain import NoiseFigure, NoiseUse


@contextmanager
def reported(subject: str) -> Iterator[None]:
    """Raise errors of `noise_models` as OptionError with a message that begins with `subject`."""
    try:
        yield
    except NoiseError as error:
        raise OptionError(f"{subject}: {error.message}", hint=error.hint) from error


def read(body: bytes, subject: str) -> tuple[Document, bytes, str]:
    """Decode a document. Returns it, its canonical bytes and their digest in hexadecimal. Raises
    OptionError."""
    with reported(subject):
        result = document.load(body)
        canonical = document.dump(result)
        return result, canonical, document.digest(canonical).hex()


class _Kind(msgspec.Struct):
    kind: str = ""


def machine(body: bytes) -> MachineDesign | None:
    """Decode a description of linked QPUs; None for another document. Raises OptionError."""
    try:
        if msgspec.json.decode(body, type=_Kind).kind != "machine":
            return None
        return msgspec.json.decode(body, type=MachineDesign)
    except msgspec.ValidationError as error:
        raise OptionError(f"machine: {error}", hint="modules by name, and links") from error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None  # reported as a noise document


def joined(design: MachineDesign, modules: Mapping[str, Document]) -> CalibrationSnapshot:
    """Return the snapshot of linked QPUs. `modules`: their snapshots. Raises OptionError."""
    with reported(f"machine {design.name[:64]!r}"):
        snapshots = {
            key: each for key, each in modules.items() if isinstance(each, CalibrationSnapshot)
        }
        return linked.linked(design.name, snapshots, design.links)


def library_names() -> dict[str, CalibrationSource]:
    """Return the devices of the library by name, with the source of each."""
    bundled = dict.fromkeys(library.BUNDLED, CalibrationSource.BUNDLED)
    return {**dict.fromkeys(library.names(), CalibrationSource.INSTALLED), **bundled}


def from_library(name: str) -> CalibrationSnapshot:
    """Load the snapshot of a device of the library. Raises OptionError."""
    with reported(f"device {name!r}"):
        return library.load(name)


def resolve(name: str) -> str:
    """Return the name of a device in the library, such as fez for FakeFez; "": there is none. Reads
    no file of a device."""
    return library.resolve(name)


def model_of(noise_document: Document, noise: tuple[tuple[str, float], ...]) -> NoiseModel:
    """Build the noise model of a document with these factors. Raises OptionError."""
    with reported("noise"):
        return document.model(noise_document, NoiseOptions.parse(noise))


def check_atoms(noise: tuple[tuple[str, float], ...]) -> None:
    """Check factors for a device of neutral atoms. Raises OptionError."""
    with reported("noise"):
        atoms.check_options(NoiseOptions.parse(noise))
        atoms.check_names(name for name, _ in noise)


def atoms_noise(analog: AnalogCalibration, noise: tuple[tuple[str, float], ...]) -> NoiseUse:
    """Return the noise of a device of neutral atoms with these factors. Raises OptionError."""
    with reported("noise"):
        options = NoiseOptions.parse(noise)
        acting = sorted(atoms.pulser_noise(analog, options).items())
        figures = tuple(NoiseFigure(name, value) for name, value in acting)
        if not options.factor("all"):  # "off"
            return NoiseUse(figures)
        return NoiseUse(figures, atoms.lacking(analog, options), atoms.limited(analog, options))


def check_gates(noise: tuple[tuple[str, float], ...], device: str) -> None:
    """Check factors for a device that runs circuits. Raises OptionError."""
    for name, _ in noise:
        if name.partition(".")[0] == "atom":
            named = f"device {device[:64]!r}, which runs circuits" if device else "a circuit"
            text = f"noise option {name} of {named}"
            raise OptionError(text, hint="components of gates, links and qubits")


def canonical_noise(noise: tuple[tuple[str, float], ...]) -> tuple[tuple[str, float], ...]:
    """Return factors in their canonical order, without factors of 1. Raises OptionError."""
    with reported("noise"):
        return NoiseOptions.parse(noise).wire()
