"""The device of a pulse sequence, given by its name or by its pool, and its checks by pulser.

The worker puts the sequence on the device, and takes its noise from the device's calibration. A
client does the first of these before, so that what the device cannot do is refused when it is
submitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simenv.client.submission import options as submission_options
from simenv.client.submission.calls import NO_DEVICE
from simenv.client.submission.devices import SubmitDevices
from simenv.errors import OptionError
from simenv.model.devices import DeviceInfo
from simenv.transpiler.atoms import on_machine

_NAMED = ("auto", "on", "off")
_MODES = ("auto", "never")
_MODELS = {"noise_types", "kind", "errors"}  # fields of noise models, of atoms and of circuits


def device_of(options: Mapping[str, Any], devices: SubmitDevices) -> DeviceInfo | None:
    """Return the emulated device that options name, directly or by a pool; None: they name none.
    Raises OptionError for a device that runs circuits, NotFoundError."""
    device = devices.named(options.get("device"))
    checked = submission_options.checked_options({"device": device, "pool": options.get("pool")})
    info = devices.of_options(checked.task)
    if info is not None and info.analog is None:
        hint = "a device of neutral atoms, such as neutral-atoms-analog: simenv devices"
        raise OptionError(f"device {info.name!r} runs circuits, no pulse sequences", hint=hint)
    return info


def device_options(options: Mapping[str, Any], info: DeviceInfo | None) -> Mapping[str, Any]:
    """Return the options of the device as they are sent. `info`: what `device_of` returns. Raises
    OptionError for options that only a device has."""
    if info is None:
        _check_without_device(options)
        return NO_DEVICE
    noise = noise_option(options)
    return {
        "device": None if options.get("device") is None else info.name,
        "noise": noise if _is_of_device(noise) else "off",
    }


def noise_option(options: Mapping[str, Any]) -> Any:
    """Return the option `noise`, of which None is the default."""
    noise = options.get("noise")
    return "auto" if noise is None else noise


def _check_without_device(options: Mapping[str, Any]) -> None:
    """Raise OptionError for options that mean nothing without a device."""
    noise, mode = noise_option(options), options.get("compile", "auto")
    if _is_scaled(noise) or mode != "auto":
        name = "noise" if _is_scaled(noise) else "compile"
        hint = "device='NAME': simenv devices; noise= is a pulser.NoiseModel otherwise"
        text = f"{name}={options[name]!r:.60} of a pulse sequence without a device"
        raise OptionError(text, hint=hint)


def _is_scaled(noise: Any) -> bool:
    return isinstance(noise, Mapping) and _is_of_device(noise)


def _is_of_device(noise: Any) -> bool:
    """Return whether noise is that of a device, possibly scaled, and no noise model."""
    if isinstance(noise, str):
        return noise in _NAMED
    return isinstance(noise, Mapping) and not _MODELS.intersection(noise)


class SequenceDevice:
    """The device of a sequence as it is packed."""

    def __init__(self, options: Mapping[str, Any], info: DeviceInfo | None) -> None:
        """`info`: None where no device is named, or the service is not asked for it. Raises
        OptionError."""
        noise, mode = noise_option(options), options.get("compile", "auto")
        self._info = info
        self._noise = noise
        self.is_named = info is not None or options.get("device") is not None
        if not self.is_named and options.get("pool") is None:
            _check_without_device(options)
        if mode not in _MODES:
            hint = "auto: timings follow the rules of the device; never: they stay as they are"
            raise OptionError(f"compile={mode!r:.60} of a pulse sequence", hint=hint)
        self.strict = mode == "never"
        # By the service, from the device's calibration.
        self.gives_noise = (self.is_named and _is_of_device(noise)) or _is_scaled(noise)

    @property
    def is_noisy(self) -> bool:
        """True if the device's calibration gives noise; factors may leave none of it."""
        info = self._info
        is_on = info is not None and self.gives_noise and self._noise != "off"
        return is_on and info is not None and bool(info.terms)

    def placed(self, built: Any) -> Any:
        """Return a sequence on the device; as it is where the device is not known. Raises
        InfeasibleError for what the device cannot do."""
        if self._info is None or self._info.analog is None:
            return built
        return on_machine(built, self._info.analog.device, strict=self.strict)
