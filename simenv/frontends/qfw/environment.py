"""Settings of QFw's QPM, its site file, and the connection of its process to an environment.

The environment is one that is up, or a private one; the connection is made once and kept.
Invariant: only a caller that asks for it waits. A thread connects; until then `qpm` is None and
`why` states the reason.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from simenv.client.connection.channel import LOST_S
from simenv.client.qpm.completion_queues import CompletionRetention
from simenv.config import check_name
from simenv.errors import ConfigError, NoServiceError, SimenvError
from simenv.qpm.contract import NotReadyError

if TYPE_CHECKING:
    from simenv.client.client import Client
    from simenv.client.qpm.provider import QPM

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


def read_settings(environ: Mapping[str, str] = os.environ) -> QPMConfig:
    """Read the SIMENV_QPM_* variables; an empty one counts as unset. Raises ConfigError, which
    names the variable."""
    pool = environ.get("SIMENV_QPM_POOL", "")
    token = environ.get("SIMENV_QPM_TOKEN_FILE", "")
    reservations = _choice(environ, "SIMENV_QPM_RESERVATIONS", ("required", "optional"))
    private = _choice(environ, "SIMENV_QPM_PRIVATE", (*_YES, *_NO))
    return QPMConfig(
        private=private in _YES if private else None,
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
    """Retention of unread completions in the file, whose other sections are ignored; the contract's
    defaults for missing values. Raises ConfigError."""
    result = _section(_read(path), path)
    settings: dict[str, int] = {}
    for key, value in result.items():
        if key not in _KEYS:
            log.warning("%s: nothing here knows %s", path, ".".join((*PLACE, str(key)[:80])))
            continue
        field, least = _KEYS[key]
        if type(value) is not int or not least <= value <= _MOST:
            message = f"{path}: {'.'.join(PLACE)}.{key} = {value!r:.80}"
            raise ConfigError(message, hint=f"a whole number from {least}")
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


RETRY_S = 1.0
STARTS = 5  # attempts for a private environment; attempts to reach a running one are not limited
WORKERS = 2  # workers of a private environment


class GivenUpError(ConfigError):
    """All attempts to start a private environment failed."""


class EnvironmentConnection:
    """Connection to the environment, made by a thread. Thread-safe."""

    def __init__(self, config: QPMConfig, site_config: Path | None = None) -> None:
        self._config = config
        self._site_config = site_config
        self._lock = threading.Lock()
        self._begun = False
        self._starts_left = STARTS
        self._reached = threading.Event()
        self._ended = threading.Event()
        self._kept = ExitStack()
        self._client: Client | None = None
        self.is_admin = config.role == "admin"  # also in a private environment
        self.qpm: QPM | None = None
        self.why = "the environment is being looked for"

    def begin(self) -> None:
        """Connect to the environment, or start it, in a thread; idempotent."""
        with self._lock:
            if self._begun or self._ended.is_set():
                return
            self._begun = True
        threading.Thread(target=self._reach, name="simenv-qfw-hub", daemon=True).start()

    def wait(self, timeout_s: float) -> QPM:
        """Wait for the connection. Raises NotReadyError after `timeout_s`."""
        self._reached.wait(timeout_s)
        return self.now()

    def now(self) -> QPM:
        """Return the QPM. Raises NotReadyError with the reason if there is no connection yet."""
        result = self.qpm
        if result is None:
            raise NotReadyError(f"no environment yet: {self.why}", hint="ask again")
        return result

    def close(self) -> None:
        """Close the connection; a private environment ends."""
        self._ended.set()
        with self._lock:
            self.qpm, self.why = None, "the service ends"
            self._kept.close()

    def _reach(self) -> None:
        while not self._ended.is_set():
            try:
                self._open()
            except GivenUpError as error:
                self.why = f"{error.message} ({error.hint}); start the service anew"
                log.error("no environment: %s", self.why)
                return
            except SimenvError as error:
                if self.why != error.message:
                    log.warning("no environment yet: %s", error)
                self.why = error.message
                self._ended.wait(RETRY_S)
            except Exception as error:
                if self.why != repr(error):
                    log.exception("no environment can be reached")
                self.why = repr(error)
                self._ended.wait(RETRY_S)
            else:
                _load_reader()
                return

    def _open(self) -> None:
        """Make the QPM. Raises NotFoundError if the pool does not exist (yet), ConfigError."""
        if self._client is None:
            self._connect()
        client, config = self._client, self._config
        if client is not None:
            qpm = _opened(client, config, self._site_config)
            with self._lock:
                if not self._ended.is_set():
                    self.qpm, self.why = qpm, ""
            self._reached.set()

    def _connect(self) -> None:
        """Connect, and keep the connection or the private environment even if the wanted pool does
        not exist yet."""
        with ExitStack() as stack:
            client = self._found(stack)
            with self._lock:
                if not self._ended.is_set():
                    self._client, self._kept = client, stack.pop_all()

    def _found(self, stack: ExitStack) -> Client:
        import simenv

        settings = self._config
        if settings.private is not True:
            try:
                role = "client" if settings.role == "client" else None
                client = stack.enter_context(simenv.connect(role=role, patience_s=LOST_S))
                info = client.status()
            except NoServiceError:
                if settings.private is False or settings.service_named:
                    raise
            else:
                log.info("environment %r on %s", info.name, info.node)
                return client
        log.warning(
            "a private environment is started, which ends with this process: %s",
            "SIMENV_QPM_PRIVATE says so" if settings.private else "none is up, and none is named",
        )
        return self._start(stack)

    def _start(self, stack: ExitStack) -> Client:
        """Start a private environment. A failed start may succeed later; STARTS failures are
        final."""
        import simenv

        self._starts_left -= 1
        self.is_admin = True
        try:
            return stack.enter_context(simenv.local(workers=WORKERS))
        except Exception as error:  # an OSError too: a full disk, no process to be had
            if self._starts_left <= 0:
                prefix = f"{STARTS} starts of a private environment failed, the last: "
                if isinstance(error, SimenvError):
                    raise GivenUpError(prefix + error.message, hint=error.hint) from error
                raise GivenUpError(prefix + repr(error), hint="see the log") from error
            raise


def _opened(client: Client, config: QPMConfig, site_config: Path | None) -> QPM:
    return client.qpm_with(
        pool=config.pool or None,
        reservations="required" if config.reservations_required else "optional",
        token_file=config.token_file,
        statevector_qubits=config.statevector_qubits,
        retention=_retention(site_config),
    )


def _retention(site_config: Path | None) -> CompletionRetention | None:
    """Read the site file. An invalid site file is QFw's to report; it is only logged here."""
    if site_config is None:
        return None
    try:
        return retention(site_config)
    except ConfigError as error:
        log.warning("QFW_SITE_CONFIG: %s; completions are kept as the contract has it", error)
        return None


def _load_reader() -> None:
    """Load the modules that parse circuits before the first circuit comes."""
    from simenv.transpiler import qiskit_runtime

    try:
        qiskit_runtime.qiskit()
    except ImportError as error:
        log.error("Qiskit cannot be loaded: %s", error)
