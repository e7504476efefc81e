"""Importer of devices of pulser-core: the abstract representation of a Device or VirtualDevice.

Its `default_noise_model` is the calibration; a second file may be the abstract representation of
another NoiseModel, which is then the calibration. A noise model lists its types: parameters of
other types have no meaning, and were not measured. pulser is not imported.
"""

from __future__ import annotations

from typing import Any

from noise_models.atoms import DEFAULT_ATOMS, PARAMETERS, AnalogCalibration
from noise_models.calibration import RESET_NS, CalibrationSnapshot
from noise_models.importers import convert, missing
from noise_models.importers.report import ImportReport, Recorder
from noise_models.importers.source import Source
from noise_models.snapshot import check
from noise_models.strict_json import SnapshotError

NAME = "pulser"
_NOISE = "default_noise_model"
# Type of noise -> its parameters that a snapshot has. Others of the type are unread.
_TYPES = {
    "SPAM": ("state_prep_error", "p_false_pos", "p_false_neg"),
    "doppler": ("temperature",),
    "register": ("temperature", "trap_waist", "trap_depth"),
    "amplitude": ("amp_sigma", "laser_waist"),
    "detuning": ("detuning_sigma",),
    "relaxation": ("relaxation_rate",),
    "dephasing": ("dephasing_rate", "hyperfine_dephasing_rate"),
    "depolarizing": ("depolarizing_rate",),
}
_UNREAD = ("eff_noise", "detuning_hf", "dmm_sigma", "detuning_map_spot_waist", "disable_doppler")
_ABOUT_RUNS = ("noise_types", "runs", "samples_per_run", "with_leakage", "$schema")
_BY_ARGUMENT = {each.pulser: each for each in PARAMETERS}


def recognizes(source: Source) -> bool:
    """Return whether a document has the channels, the dimensions and the Rydberg level of a
    device."""
    return any(map(_is_device, (value for _, value in source.objects())))


def _is_device(value: dict[str, Any]) -> bool:
    return {"channels", "dimensions", "rydberg_level", "interaction_coeff_xy"} <= value.keys()


def read(source: Source, name: str) -> tuple[CalibrationSnapshot, ImportReport]:
    """Convert a device, and its noise model, to a snapshot. Raises SnapshotError."""
    devices = [value for _, value in source.objects() if _is_device(value)]
    noises = [value for _, value in source.objects() if "noise_types" in value]
    if len(devices) != 1 or len(devices) + len(noises) < len(source.documents) + len(source.tables):
        text = "not one device of pulser, and at most one noise model"
        raise SnapshotError("files", text, hint="Device.to_abstract_repr() in one file")
    if len(noises) > 1:
        raise SnapshotError("files", f"{len(noises)} noise models", hint="give one")
    recorder = Recorder()
    device = dict(devices[0])
    noise, prefix = device.pop(_NOISE, None), f"{_NOISE}."
    if noises:
        if noise is not None:
            recorder.ignored(_NOISE, "another noise model was given")
        noise, prefix = noises[0], "noise."
    for field in device:
        recorder.used(field, f"analog.device.{field}")
    figures = (
        {} if noise is None else _figures(convert.mapping(noise, prefix[:-1]), prefix, recorder)
    )
    analog = AnalogCalibration(device=device, **figures)  # type: ignore[arg-type]
    version = convert.text(device.get("pulser_version", ""), "pulser_version")
    result = CalibrationSnapshot(
        name=name or convert.text(device.get("name"), "name"),
        num_qubits=_limit(device, "max_atom_num", recorder) or DEFAULT_ATOMS,
        technology="neutral-atom",
        version=f"pulser {version}".strip(),
        max_shots=_limit(device, "max_runs", recorder),
        rep_delay_ns=RESET_NS["neutral-atom"],
        source_format=NAME,
        source_digest=source.digest,
        analog=analog,
    )
    check(result)
    if not device.get("max_atom_num"):
        recorder.defaulted("num_qubits", f"{DEFAULT_ATOMS}: the device has no limit of atoms")
    per_second = 1e9 / RESET_NS["neutral-atom"]
    recorder.defaulted("rep_delay_ns", f"{per_second:g} shots a second, as machines of atoms have")
    missing.report(result, {}, recorder)
    return result, recorder.report(NAME)


def _limit(device: dict[str, Any], field: str, recorder: Recorder) -> int:
    """Return a whole number of the device; 0: it has no such limit."""
    value = device.get(field)
    if value is None:
        return 0
    recorder.used(field, "num_qubits" if field == "max_atom_num" else "max_shots")
    return convert.integer(value, field)


def _figures(noise: dict[str, Any], prefix: str, recorder: Recorder) -> dict[str, float]:
    """Return the figures of a noise model by the names of a snapshot."""
    types = [
        convert.text(each, at)
        for at, each in convert.items(noise.get("noise_types", []), f"{prefix}noise_types")
    ]
    present = {argument for each in types for argument in _TYPES.get(each, ())}
    results: dict[str, float] = {}
    for key, value in noise.items():
        at = f"{prefix}{convert.key_text(key)}"
        parameter = _BY_ARGUMENT.get(key)
        if key in _ABOUT_RUNS:
            continue
        if parameter is None:
            acts = key not in _UNREAD or bool(value)
            recorder.unknown(at, is_noise=acts)
        elif key not in present or value is None:
            recorder.ignored(at, "of a type of noise that the model does not have")
        else:
            number = convert.number(value, at)
            if parameter.is_time or (parameter.limits[0] > 0.0 and not number):
                if number <= 0.0:
                    recorder.ignored(at, "0: no such noise")
                    continue
                number = 1.0 / number if parameter.is_time else number
            results[parameter.name] = number
            recorder.used(at, f"analog.{parameter.name}")
    return results
