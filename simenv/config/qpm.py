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
    reservations = _choice(environ, "SIMENV_QPM_RESERVATIONS", ("required", "optional"))
    return QPMConfig(
        private=_boolean(environ, "SIMENV_QPM_PRIVATE"),
        service_named=bool(environ.get("SIMENV_SERVICE")),
        pool=check_name(pool, "SIMENV_QPM_POOL: a pool's") if pool else "",
        role=_choice(environ, "SIMENV_QPM_ROLE", ("client", "admin")) or "client",
        types=_integer(environ, "SIMENV_QPM_TYPE", 0, 1, 31),
        reservations_required=reservations != "optional",
        token_file=Path(token).expanduser() if token else None,
        statevector_qubits=_integer(
            environ, "SIMENV_QPM_STATEVECTOR_QUBITS", STATEVECTOR_QUBITS, 0, _MOST_STATEVECTOR
        ),
    )


def _boolean(environ: Mapping[str, str], name: str) -> bool | None:
    text = _choice(environ, name, (*_YES, *_NO))
    return None if not text else text in _YES


def _choice(environ: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    text = environ.get(name, "").lower()
    if text and text not in choices:
        raise ConfigError(f"{name}={text[:80]!r}", hint=f"one of: {', '.join(choices)}")
    return text


def _integer(environ: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = environ.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or not low <= int(text) <= high:
        raise ConfigError(f"{name}={text[:80]!r}", hint=f"a whole number, {low} to {high}")
    return int(text)
