"""Parser of QRMI's environment variables, from a mapping. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from simenv.errors import ConfigError

TYPE = "simenv"  # type of a pool in QRMI_JOB_QPU_TYPES
RESOURCES, TYPES = "QRMI_JOB_QPU_RESOURCES", "QRMI_JOB_QPU_TYPES"
_OLD = {RESOURCES: "SLURM_JOB_QPU_RESOURCES", TYPES: "SLURM_JOB_QPU_TYPES"}
_DELIMITER = "QRMI_LIST_DELIMITER"


class ResourceSettings(msgspec.Struct, frozen=True):
    """Settings of one resource, whose name is its pool's. `reservation` 0: none."""

    service: Path | None
    reservation: int
    run_timeout_s: float | None


def names(environ: Mapping[str, str]) -> list[str]:
    """Resources of this job that are pools of simenv, in order. Raises ConfigError."""
    result, types = _listed(environ, RESOURCES), _listed(environ, TYPES)
    if len(result) != len(types):
        raise ConfigError(
            f"{RESOURCES} names {len(result)} resources, {TYPES} {len(types)} types",
            hint=f"one type for each, {TYPE} for a pool",
        )
    return [name for name, kind in zip(result, types, strict=True) if kind == TYPE]


def read(environ: Mapping[str, str], resource: str) -> ResourceSettings:
    """Read the settings of a resource. Raises ConfigError with the variable and its value."""
    service = environ.get(f"{resource}_QRMI_SIMENV_SERVICE", "")
    reservation = _number(environ, f"{resource}_QRMI_JOB_ACQUISITION_TOKEN")
    timeout = _number(environ, f"{resource}_QRMI_JOB_TIMEOUT_SECONDS")
    return ResourceSettings(Path(service) if service else None, reservation or 0, timeout or None)


def _listed(environ: Mapping[str, str], name: str) -> list[str]:
    text = environ.get(name, environ.get(_OLD[name], ""))
    return [word.strip() for word in text.split(environ.get(_DELIMITER, ","))] if text else []


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "")
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ConfigError(f"{name}={text[:80]!r}", hint="a whole number from 1 on")
    return int(text)
