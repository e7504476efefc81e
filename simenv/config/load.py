"""Loading of the configuration.

Merge defaults, the last start's settings, files and options into one `Config`. Later sources
override earlier ones: defaults, the settings of the last start (if its journal still exists),
`simenv.toml`, options of the call. The result is written as JSON for the service process, whose
only argument is that file.
"""

from __future__ import annotations

import os
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec

from simenv.config.limits import limit_values, limits_of
from simenv.config.model import CONFIG_FORMAT, Config, check
from simenv.config.paths import home_root, places
from simenv.config.pools import as_table, check_name, nearest, pool_of, size
from simenv.errors import DECODE_ERRORS, ConfigError
from simenv.files import write_atomic

_ANEW = "simenv up --config FILE"
# Settings of one start, not of the environment.
_NOT_RESTORED = ("name", "resume", "force_lock", "lifeline", "faults", "format")
_SHORT = {"launcher": "use", "gateway": "listen"}  # tables, and the key that options name
_PATHS = ("hostfile", "state_dir")  # relative ones would name other files at the next start
_SIZES = ("memory_bytes", "memory_per_slot", "max_queued_bytes", "max_service_bytes")


def load(
    options: Mapping[str, object], file: Path | None = None, environ: Mapping[str, str] = os.environ
) -> Config:
    """Merge defaults, then `file`, then `options`. Without `file`: the result of `last_config`,
    then SIMENV_HOME/<name>/simenv.toml if that is empty or the file is newer than the last start,
    then `options`."""
    name = check_name(str(options.get("name", "default")))
    source, last, settings = "options", dict[str, object](), dict[str, object]()
    path = file
    if path is None:
        last = last_config(name, environ, resume=bool(options.get("resume")))
        own_file = home_root(environ) / name / "simenv.toml"
        stored = own_file.with_name("config.json")
        if own_file.exists() and (not last or own_file.stat().st_mtime >= stored.stat().st_mtime):
            path = own_file
    if path is not None:
        source, settings = str(path), _toml(path)
        if (named := settings.get("name", name)) != name:
            text = f"{source}: name = {str(named)[:80]!r}, and the environment is {name!r}"
            raise ConfigError(text, hint=f"simenv up --name {str(named)[:80]} --config {source}")
    merged = _merged_layers(last, settings, options)
    # Else the pools are those of the last start, with its folders.
    if "pools" in settings or "pools" in options:
        given = options.get("import_from")  # of an archive, for example
        folders = [*given] if isinstance(given, (tuple, list)) else []
        merged["import_from"] = tuple(dict.fromkeys((*folders, *import_folders(environ))))
    return convert({**merged, "name": name}, source)


def import_folders(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Folders to search for the module of a provider: the working directory, then PYTHONPATH."""
    named = environ.get("PYTHONPATH", "").split(os.pathsep)
    return tuple(dict.fromkeys(os.path.abspath(each) for each in (os.curdir, *filter(None, named))))


def _merged_layers(*layers: Mapping[str, object]) -> dict[str, object]:
    """Merge layers of settings, of which later ones override earlier ones. Keys of [launcher] and
    [gateway] are merged one by one; `hosts` and `hostfile` replace each other."""
    entries: dict[str, object] = {}
    tables: dict[str, dict[str, object]] = {}
    for layer in layers:
        if "hosts" in layer or "hostfile" in layer:
            entries.pop("hosts", None)
            entries.pop("hostfile", None)
        entries |= layer
        for name in _SHORT.keys() & layer.keys():
            tables[name] = tables.get(name, {}) | _table_of(name, layer[name])
    return entries | tables


def _table_of(name: str, value: object) -> dict[str, object]:
    """Return a table of _SHORT; a value that is none is that of its first key."""
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    return dict(value) if isinstance(value, Mapping) else {_SHORT[name]: value}


def last_config(
    name: str, environ: Mapping[str, str] = os.environ, resume: bool = False
) -> dict[str, object]:
    """Return the settings of the environment's last start; {} if there was none or if its journal
    does not exist. `resume`: return the settings also without a journal at its former path."""
    path = home_root(environ) / check_name(name) / "config.json"
    if not path.exists():
        return {}
    last = read(path)
    paths = places(last, environ)
    if not (resume or last.journal) and not paths.journal.exists() and not paths.copy.exists():
        return {}
    values = msgspec.structs.asdict(last)
    return {key: value for key, value in values.items() if key not in _NOT_RESTORED}


def convert(values: Mapping[str, object], source: str = "options") -> Config:
    """Return a checked Config. Raises ConfigError, which names the key, the value and the allowed
    values."""
    fields = Config.__struct_fields__
    for key in values:
        if key not in fields:
            raise ConfigError(f"{source}: unknown key {key!r}", hint=nearest(key, fields))
    plain = _plain(values, source)
    try:
        config = msgspec.convert(plain, Config)
    except msgspec.ValidationError as error:
        _check_entry(plain, Config, source)
        raise ConfigError(f"{source}: {error}") from error
    check(config, source)
    return config


def _check_entry(value: Any, kind: Any, source: str, key: str = "") -> None:
    """Raise ConfigError for the first entry that is unknown or of another type, by its whole key:
    msgspec does not name the key of a table inside another one."""
    if not isinstance(value, Mapping):
        kinds = {}
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        kinds = {field.name: field.type for field in msgspec.structs.fields(kind)}
        if unknown := [name for name in value if name not in kinds]:
            hint = nearest(unknown[0], kinds)
            raise ConfigError(f"{source}: unknown key '{key}{unknown[0]}'", hint=hint)
    else:
        kinds = dict.fromkeys(value, get_args(kind)[1]) if get_origin(kind) is dict else {}
    for name, each in value.items() if kinds else ():
        _check_entry(each, kinds[name], source, f"{key}{name}.")
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {key[:-1]}: {error}") from error


def _plain(values: Mapping[str, object], source: str) -> dict[str, Any]:
    """Parse values that users write as text or tables: sizes, pools, limits, accounts, classes of
    service, the launcher, paths."""
    plain = dict[str, Any](values)
    for key in _SIZES:
        if isinstance(plain.get(key), str):
            plain[key] = size(plain[key], f"{source}: {key}")
    pools = plain.get("pools")
    if isinstance(pools, Mapping):
        raise ConfigError(f"{source}: pools is one table", hint="[[pools]] begins each pool")
    if isinstance(pools, list | tuple):
        plain["pools"] = [
            pool_of(pool, f"{source}: pools[{number}]") if isinstance(pool, Mapping) else pool
            for number, pool in enumerate(pools)
        ]
    if "limits" in plain:
        plain["limits"] = limits_of(plain["limits"], source)
    for key in ("accounts", "qos"):
        if key in plain:
            plain[key] = _with_limits(plain[key], f"{source}: {key}")
    for key in _SHORT.keys() & plain.keys():
        plain[key] = _table_of(key, plain[key])
    identity = plain.get("identity")
    if isinstance(identity, Mapping) and isinstance(identity.get("use"), str):
        plain["identity"] = {**identity, "use": [identity["use"]]}
    hooks = plain.get("hooks")
    if isinstance(hooks, Mapping) and isinstance(hooks.get("on"), Mapping):
        on = {
            kind: _words(each, f"{source}: hooks: on.{kind}") if isinstance(each, str) else each
            for kind, each in hooks["on"].items()
        }
        plain["hooks"] = {**hooks, "on": on}
    if "devices" in plain:
        plain["devices"] = _commands(plain["devices"], f"{source}: devices")
    for key in _PATHS:
        if isinstance(plain.get(key), str | os.PathLike) and plain[key]:
            plain[key] = os.path.abspath(plain[key])
    return plain


def _with_limits(raw: object, subject: str) -> dict[str, object]:
    """Parse the limits inside the tables [accounts.NAME] or [qos.NAME]; sizes may have units."""
    tables = as_table(raw, subject)
    for name, each in tables.items():
        if isinstance(each, Mapping) and "limits" in each:
            limits = limit_values(each["limits"], f"{subject}.{name[:64]}.limits")
            tables[name] = {**each, "limits": limits}
    return tables


def _commands(raw: object, subject: str) -> dict[str, object]:
    """Split the commands inside the tables [devices.NAME] into words, as a shell does. Raises
    ConfigError."""
    tables = as_table(raw, subject)
    for name, each in tables.items():
        if isinstance(each, Mapping) and isinstance(each.get("refresh"), str):
            words = _words(each["refresh"], f"{subject}.{name[:64]}: refresh")
            tables[name] = {**each, "refresh": words}
    return tables


def _words(command: str, subject: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        hint = 'a list: ["PROGRAM", "ARGUMENT"]'
        raise ConfigError(f"{subject} cannot be split into words: {error}", hint=hint) from error


def read(path: Path) -> Config:
    """Read a resolved Config that `write` has written. Raises ConfigError."""
    try:
        config = msgspec.json.decode(path.read_bytes(), type=Config)
    except (OSError, *DECODE_ERRORS) as error:
        raise ConfigError(f"cannot read {path}: {error}", hint=f"write it anew: {_ANEW}") from error
    if config.format != CONFIG_FORMAT:
        text = f"{path} has format {config.format}, this build reads {CONFIG_FORMAT}"
        raise ConfigError(text, hint=f"write it anew: {_ANEW}")
    return config


def write(config: Config, path: Path) -> None:
    """Write the file that the service process reads, mode 0600, by rename."""
    write_atomic(path, msgspec.json.format(msgspec.json.encode(config)))


def _toml(path: Path) -> dict[str, object]:
    """Read a TOML file. Its relative paths are resolved against the folder of this file."""
    try:
        settings = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # of tomllib: also for long numbers, deep lists
        raise ConfigError(f"{path}: {error}") from error
    tables = ((settings, _PATHS), (settings.get("gateway"), ("tls_certificate", "tls_key")))
    for table, keys in tables:
        if isinstance(table, dict):
            for key in keys:
                if isinstance(table.get(key), str) and table[key]:
                    table[key] = str(path.absolute().parent / table[key])
    return settings
