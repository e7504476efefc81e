"""Reader of QFw's site file: the retention of unread completions. Other sections are ignored."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import msgspec

from simenv.client.qpm.runtime.completion_queues import CompletionRetention
from simenv.errors import ConfigError

PLACE = ("qpm", "completion-queues", "retention")
_MOST_BYTES = 2**20
_MOST = 2**53
_KEYS = {  # field of CompletionRetention, and the least value
    "completion-ttl-seconds": ("age_s", 0),
    "terminal-reservation-retention-seconds": ("closed_s", 0),
    "max-records-per-reservation": ("count", 1),
    "max-bytes-per-reservation": ("size_bytes", 0),
    "purge-interval-seconds": ("purge_s", 0),
}
log = logging.getLogger("simenv.qfw")


def retention(path: Path) -> CompletionRetention:
    """Retention in the file; the contract's defaults for missing values. Raises ConfigError."""
    result = _section(_read(path), path)
    settings: dict[str, int] = {}
    for key, value in result.items():
        if key not in _KEYS:
            log.warning("%s: nothing here knows %s", path, ".".join((*PLACE, str(key)[:80])))
            continue
        field, least = _KEYS[key]
        if type(value) is not int or not least <= value <= _MOST:
            raise ConfigError(
                f"{path}: {'.'.join(PLACE)}.{key} = {value!r:.80}",
                hint=f"a whole number from {least}",
            )
        settings[field] = value
    return msgspec.structs.replace(CompletionRetention(), **settings)


def _read(path: Path) -> Any:
    try:
        import yaml  # DEFw's own language: it is there where DEFw is
    except ImportError as error:
        raise ConfigError(f"{path} is YAML", hint="pip install 'simenv[qpm]'") from error
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise ConfigError(f"{path} is larger than {_MOST_BYTES} bytes")
        return yaml.safe_load(text)  # builds plain values only
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        message = " ".join(str(error).split())
        raise ConfigError(f"{path} is not YAML: {message[:200]}") from error


def _section(section: Any, path: Path) -> dict[Any, Any]:
    """Table at PLACE; empty if there is none."""
    for number, name in enumerate(PLACE):
        if section is None:
            return {}
        if not isinstance(section, dict):
            raise ConfigError(f"{path}: {'.'.join(PLACE[:number]) or 'all of it'} is not a table")
        section = section.get(name)
    if not isinstance(section, dict | None):
        raise ConfigError(f"{path}: {'.'.join(PLACE)} is not a table")
    return section or {}
