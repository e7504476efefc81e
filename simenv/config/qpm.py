"""Settings of a QPM for other hosts: SIMENV_QPM_* variables as one frozen value.

An empty variable counts as unset.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from simenv.config.syntax import check_name
from simenv.errors import ConfigError

STATEVECTOR_QUBITS = 12  # 0.15 ms an amplitude: 0.7 s
_MOST_STATEVECTOR = 20
_YES, _NO = ("1", "yes", "true", "on"), ("0", "no", "false", "off")


class QPMConfig(msgspec.Struct, frozen=True):
    """Settings of one QPM. `private`: start a private environment always, never, or (None) if no
    environment is running."""

    private: bool | None = None
    service_named: bool = False  # SIMENV_SERVICE says which environment is meant
    pool: str = ""  # "": all of them, merged
    types: int = 0  # type bits; 0: by the kinds of devices that it represents
    role: str = "client"  # rights in an environment that is up; "admin": those of the key
    reservations_required: bool = True
    token_file: Path | None = None
    statevector_qubits: int = STATEVECTOR_QUBITS


def read(environ: Mapping[str, str] | None = None) -> QPMConfig:
    """Read the SIMENV_QPM_* variables. Raises ConfigError, which names the variable."""
    environ = os.environ if environ is None else environ
    pool = environ.get("SIMENV_QPM_POOL", "")
    token = environ.get("SIMENV_QPM_TOKEN_FILE", "")
    wanted = _one_of(environ, "SIMENV_QPM_RESERVATIONS", ("required", "optional"))
    return QPMConfig(
        private=_truth(environ, "SIMENV_QPM_PRIVATE"),
        service_named=bool(environ.get("SIMENV_SERVICE")),
        pool=check_name(pool, "SIMENV_QPM_POOL: a pool's") if pool else "",
        role=_one_of(environ, "SIMENV_QPM_ROLE", ("client", "admin")) or "client",
        types=_whole(environ, "SIMENV_QPM_TYPE", 0, 1, 31),
        reservations_required=wanted != "optional",
        token_file=Path(token).expanduser() if token else None,
        statevector_qubits=_whole(
            environ, "SIMENV_QPM_STATEVECTOR_QUBITS", STATEVECTOR_QUBITS, 0, _MOST_STATEVECTOR
        ),
    )


def _truth(environ: Mapping[str, str], name: str) -> bool | None:
    word = _one_of(environ, name, (*_YES, *_NO))
    return None if not word else word in _YES


def _one_of(environ: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    word = environ.get(name, "").lower()
    if word and word not in choices:
        raise ConfigError(f"{name}={word[:80]!r}", hint=f"one of: {', '.join(choices)}")
    return word


def _whole(environ: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = environ.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or not low <= int(text) <= high:
        raise ConfigError(f"{name}={text[:80]!r}", hint=f"a whole number, {low} to {high}")
    return int(text)
