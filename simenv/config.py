"""What an environment was told: `simenv.toml` and SIMENV_* variables -> one frozen Config.

The only reader of SIMENV_* variables. Later words win: defaults, what the last start was told
(where its journal is still there), `simenv.toml`, the call's options. A resolved Config is written
as JSON for the service process, whose only argument is that file.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import stat
import tempfile
import tomllib
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path

import msgspec

from simenv.errors import ConfigError
from simenv.model import PoolSpec
from simenv.store import disks

CONFIG_FORMAT = 1
_ANEW = "simenv up --config FILE"
# Of one start, not of the environment.
_NEVER_KEPT = ("name", "resume", "force_lock", "lifeline", "faults", "format")
NAME_RULE = re.compile(r"[a-z][a-z0-9_.-]{0,63}\Z")
MAX_IDLE_S = 10**8
EVERYWHERE = "everywhere"  # the word for all interfaces
DURABILITIES = ("accepted", "process", "power")


class History(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long ended tasks are kept."""

    keep_days: float = 30.0


class Results(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much is kept of them, files of results and journal together."""

    keep_gib: float = 20.0


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything the service needs to know at start."""

    name: str = "default"
    durability: str = "accepted"
    pools: tuple[PoolSpec, ...] = (PoolSpec(),)
    slots: int = 0  # 0: the cores really ours
    memory_bytes: int = 0  # for simulators; 0: 80 % of what is really ours
    state_dir: str = ""  # of the live journal and results; "": as `state_folder` says
    network_state: bool = False  # allow it on a network's file system, at your own risk
    max_queued_tasks: int = 2_000_000
    max_queued_bytes: int = 2 * 2**30
    worker_lease_s: float = 15.0  # a worker that hears nothing for so long ends itself
    silent_s: float = 10.0  # a worker that says nothing for so long is lost
    start_timeout_s: float = 60.0
    drain_timeout_s: float = 30.0
    listen: str = ""  # for other machines: tcp://HOST:PORT (0: any port); "": this machine only
    history: History = History()
    results: Results = Results()
    resume: bool = False  # refuse to start without a journal; take the copy where that is newer
    force_lock: bool = False  # pass by the lock of a service on another machine
    lifeline: bool = False  # end when the starter's pipe closes (private environments)
    faults: str = ""  # drills: "point:nth,..."; see simenv.service.faults
    format: int = CONFIG_FORMAT


class Places(msgspec.Struct, frozen=True):
    """Where an environment keeps its things."""

    home: Path  # connection file, config, logs (0700)
    state: Path  # the live journal (0700)

    @property
    def connection(self) -> Path:
        return self.home / "connection.json"

    @property
    def server_key(self) -> Path:
        """The environment's own keys, and where it listened last."""
        return self.home / "server-key.json"

    @property
    def keys(self) -> Path:
        """Who is let in from other machines."""
        return self.home / "keys.json"

    @property
    def config(self) -> Path:
        return self.home / "config.json"

    @property
    def log(self) -> Path:
        return self.home / "service.log"

    @property
    def logs(self) -> Path:
        """Folder of the workers' logs."""
        return self.home / "logs"

    @property
    def journal(self) -> Path:
        return self.state / "journal.db"

    @property
    def copy(self) -> Path:
        """Copy of the journal, for a start elsewhere."""
        return self.home / "journal.copy.db"

    @property
    def results(self) -> Path:
        """Folder of the files of large results."""
        return self.state / "results"


class ConnectionFile(msgspec.Struct, frozen=True):
    """`connection.json`: where the service listens; its mtime is the last sign of life."""

    format: int
    name: str
    version: str
    pid: int
    node: str
    epoch: int
    sockets: str  # folder of client.sock and worker.sock
    address: str = ""  # for other machines: tcp://HOST:PORT; "": it does not listen
    server_key: str = ""  # public, in ZeroMQ's base 85


def home_root(environ: Mapping[str, str] | None = None) -> Path:
    """SIMENV_HOME, by default ~/.simenv."""
    environ = os.environ if environ is None else environ
    return Path(environ.get("SIMENV_HOME") or Path.home() / ".simenv").expanduser().absolute()


def service_file(environ: Mapping[str, str] | None = None) -> Path | None:
    """The connection file SIMENV_SERVICE names, if any."""
    environ = os.environ if environ is None else environ
    named = environ.get("SIMENV_SERVICE")
    return Path(named).expanduser().absolute() if named else None


def application(environ: Mapping[str, str] | None = None) -> str:
    """The run of an application this process belongs to (SIMENV_APP); "" if to none."""
    environ = os.environ if environ is None else environ
    named = environ.get("SIMENV_APP", "")
    return check_name(named, "SIMENV_APP: an application's") if named else ""


def check_name(name: str, what: str = "environment") -> str:
    """The one rule for names; ConfigError otherwise."""
    if not NAME_RULE.match(name):
        raise ConfigError(
            f"{what} name {name[:80]!r} is not allowed",
            hint="a name is a-z, then up to 63 of a-z 0-9 _ . -",
        )
    return name


def places(config: Config, environ: Mapping[str, str] | None = None) -> Places:
    """The folders of one environment; nothing is created."""
    home = home_root(environ) / check_name(config.name)
    return Places(home, state_folder(config, home, environ))


def state_folder(config: Config, home: Path, environ: Mapping[str, str] | None = None) -> Path:
    """Where the live journal is: `state_dir`; else the environment's home, if that is on a disk of
    this machine; else a folder of this machine's own, under SIMENV_SCRATCH, TMPDIR or /var/tmp."""
    environ = os.environ if environ is None else environ
    if config.state_dir:
        return Path(config.state_dir).absolute()
    if config.network_state or not disks.is_network(disks.kind_of(home)):
        return home
    for base in (environ.get("SIMENV_SCRATCH"), environ.get("TMPDIR"), "/var/tmp", "/tmp"):
        if base and not disks.is_network(disks.kind_of(Path(base))) and os.access(base, os.W_OK):
            mark = hashlib.blake2b(str(home).encode(), digest_size=4).hexdigest()
            return Path(base).absolute() / f"simenv-{os.getuid()}" / f"{config.name}-{mark}"
    return home


def private_folder(path: Path) -> Path:
    """Create (or accept) a folder that only we can enter; ConfigError if others can write it."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = path.stat()
    except OSError as error:
        raise ConfigError(
            f"cannot make the folder {path}: {error.strerror}",
            hint="set SIMENV_HOME to a folder of your own",
        ) from error
    if info.st_uid != os.getuid() or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            f"{path} belongs to someone else or can be written by others",
            hint=f"chmod 700 {path}, or set SIMENV_HOME to a folder of your own",
        )
    return path


def socket_folder(environ: Mapping[str, str] | None = None) -> Path:
    """A fresh 0700 folder for sockets, under XDG_RUNTIME_DIR or the system's temporary folder."""
    environ = os.environ if environ is None else environ
    runtime = environ.get("XDG_RUNTIME_DIR")
    base = runtime if runtime and os.access(runtime, os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="simenv-", dir=base))


def kernel_cache(environ: Mapping[str, str] | None = None) -> Path:
    """Where compiled kernels are kept for all environments of this user: SIMENV_KERNELS (a local
    disk, where homes are far away), by default SIMENV_HOME/kernels."""
    environ = os.environ if environ is None else environ
    named = environ.get("SIMENV_KERNELS")
    return Path(named).expanduser().absolute() if named else home_root(environ) / "kernels"


def load(
    options: Mapping[str, object],
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Defaults, then `file`, then `options`.

    Without `file`: what `kept` says, then SIMENV_HOME/<name>/simenv.toml where nothing is kept or
    where it was changed since, then `options`.
    """
    name = check_name(str(options.get("name", "default")))
    source, last, told = "options", dict[str, object](), dict[str, object]()
    path = file
    if path is None:
        last = kept(name, environ, resume=bool(options.get("resume")))
        own = home_root(environ) / name / "simenv.toml"
        if own.exists() and not (last and _older(own, own.with_name("config.json"))):
            path = own
    if path is not None:
        source, told = str(path), _toml(path)
    return convert({**last, **told, **options, "name": name}, source)


def kept(
    name: str, environ: Mapping[str, str] | None = None, resume: bool = False
) -> dict[str, object]:
    """What the environment's last start was told; {} where there is none, or no journal of it.

    `resume`: the journal need not be where it was.
    """
    path = home_root(environ) / check_name(name) / "config.json"
    if not path.exists():
        return {}
    last = read(path)
    where = places(last, environ)
    if not resume and not where.journal.exists() and not where.copy.exists():
        return {}
    values = msgspec.structs.asdict(last)
    return {key: value for key, value in values.items() if key not in _NEVER_KEPT}


def convert(values: Mapping[str, object], source: str = "options") -> Config:
    """A checked Config; ConfigError names the key, the value and what is allowed."""
    fields = Config.__struct_fields__
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, 1)
            raise ConfigError(
                f"{source}: unknown key {key!r}",
                hint=f"did you mean `{near[0]}`?" if near else f"known: {', '.join(fields)}",
            )
    try:
        config = msgspec.convert(dict(values), Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {error}") from error
    _check(config, source)
    return config


def read(path: Path) -> Config:
    """A resolved Config written by `write`."""
    try:
        config = msgspec.json.decode(path.read_bytes(), type=Config)
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(
            f"cannot read {path}: {error}", hint=f"say what it should be: {_ANEW}"
        ) from error
    if config.format != CONFIG_FORMAT:
        raise ConfigError(
            f"{path} has format {config.format}, this build reads {CONFIG_FORMAT}",
            hint=f"say what it should be: {_ANEW}",
        )
    return config


def write(config: Config, path: Path) -> None:
    """Write for the service process, 0600, by rename."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(msgspec.json.format(msgspec.json.encode(config)))
    temporary.replace(path)


def listen_parts(listen: str) -> tuple[str, int]:
    """Host and port of `tcp://HOST:PORT`; ConfigError if that is not what it is."""
    scheme, _, rest = listen.partition("://")
    host, _, port = rest.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if (
        scheme != "tcp"
        or not host
        or not (port.isascii() and port.isdecimal())
        or int(port) > 65_535
    ):
        raise ConfigError(
            f"listen = {listen[:80]!r} is not an address to listen on",
            hint="tcp://HOST:PORT; HOST is an interface (eth0), a name or an IP address of this "
            "machine, port 0 takes any",
        )
    if host in ("*", "0.0.0.0", "::"):
        raise ConfigError(
            f"listen = {listen!r} would open every interface of this machine",
            hint=f"name one; if all are meant: tcp://{EVERYWHERE}:{port}",
        )
    return host, int(port)


def _toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _older(path: Path, other: Path) -> bool:
    return path.stat().st_mtime < other.stat().st_mtime


def _check(config: Config, source: str) -> None:
    check_name(config.name)
    if config.durability not in DURABILITIES:
        raise ConfigError(
            f"{source}: durability {config.durability!r} is not known",
            hint=f"one of: {', '.join(DURABILITIES)}",
        )
    for key, low, high in (  # beats come every second: fewer than three prove nothing
        ("slots", 0, 4096),
        ("memory_bytes", 0, 2**60),
        ("max_queued_tasks", 1, 10**8),
        ("max_queued_bytes", 2**20, 2**50),
        ("worker_lease_s", 3.0, 3600.0),
        ("silent_s", 3.0, 3600.0),
        ("start_timeout_s", 1.0, 3600.0),
        ("drain_timeout_s", 0.0, 86400.0),
        ("history.keep_days", 0.0, 36_500.0),
        ("results.keep_gib", 0.001, 2.0**30),
    ):
        value = attrgetter(key)(config)
        if not low <= value <= high:
            raise ConfigError(f"{source}: {key} = {value} is outside {low} .. {high}")
    if config.listen:
        listen_parts(config.listen)
    names = [check_name(pool.name, "pool") for pool in config.pools]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"{source}: pools need distinct names, got {names}")
    for pool in config.pools:
        if not 0 <= pool.min <= pool.max <= 1024 or pool.max < 1:
            raise ConfigError(
                f"{source}: pool {pool.name!r} wants min={pool.min}, max={pool.max} workers",
                hint="0 <= min <= max, 1 <= max <= 1024",
            )
        if not 0 <= pool.idle_s <= MAX_IDLE_S:
            raise ConfigError(
                f"{source}: pool {pool.name!r}: idle_s = {pool.idle_s} is outside 0 .. {MAX_IDLE_S}"
            )
