"""The page of settings and environment variables, generated from the code that reads them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, get_type_hints

import msgspec

from simenv.config import model
from simenv.model import Limits, PoolSpec
from simenv.model.accounts import Account, Billing, Qos

_INTRODUCTION = """# Configuration

`simenv up` reads `SIMENV_HOME/NAME/simenv.toml`, or the file that `--config` names. Options of the
command line override the file, and the file overrides the defaults. An unknown key is an error that
names the nearest known key. This page is generated from `simenv.config` and `simenv.model`.

```toml
durability = "accepted"
slots = 4

[[pools]]
name = "main"
min = 1
max = 4

[history]
keep_days = 7
```

Sizes may be written as text with a unit, such as `"512MiB"`.
"""

# Keys that only simenv itself writes.
_INTERNAL = {
    (model.Config, name)
    for name in ("faults", "force_lock", "format", "import_from", "lifeline", "name", "resume")
} | {(PoolSpec, "auto_workers")}
# What a table of the file has otherwise than the struct that is made of it.
_RENAMED = {(PoolSpec, "memory_bytes"): "memory"}
_ADDED: dict[type[msgspec.Struct], tuple[str, ...]] = {
    PoolSpec: (
        '| `workers` | integer | | the same as `min` and `max`; `"auto"`: one for each GPU |',
        "| `slurm`, `pbs` | table | | jobs that bring its nodes; [Grow a pool by jobs]"
        "(../guides/job_pools.md) has its keys |",
    )
}
_TABLES: tuple[tuple[str, type[msgspec.Struct], str], ...] = (
    ("[[pools]]", PoolSpec, "One table for each pool of workers."),
    (
        "[devices.NAME]",
        model.DeviceSettings,
        "Calibration data that a command of the site fetches; [Import calibration data]"
        "(../guides/device_data.md#refresh) explains it.",
    ),
    (
        "[hooks]",
        model.HookSettings,
        "Commands of the site; [Operate a service](../guides/operate.md) explains them.",
    ),
    ("[launcher]", model.Launching, "How workers are started."),
    ("[history]", model.HistorySettings, "Retention of the records of ended tasks."),
    ("[results]", model.Results, "Retention of results."),
    (
        "[identity]",
        model.IdentitySettings,
        "Users without key files; [Identify users](../guides/identity.md) explains them.",
    ),
    (
        "[gateway]",
        model.GatewaySettings,
        "The environment over HTTP; [Serve an environment](../guides/gateway.md) explains it.",
    ),
    ("[policies.POOL]", model.Policies, "Queue and admission policy of a pool, or of `all`."),
    (
        "[accounts.NAME]",
        Account,
        "An account. Its `limits` are `max_queued_tasks`, `max_queued_bytes`, `max_running_slots`,"
        " `max_priority` and `max_run_s`, of all its users and of the accounts below it together.",
    ),
    (
        "[qos.NAME]",
        Qos,
        "A class of service. Its `limits` are `max_queued_tasks`, `max_queued_bytes` and"
        " `max_priority`, of each user in it.",
    ),
    ("[billing]", Billing, "Weights of billing units: one unit is one slot for one second."),
    (
        "[limits.client], [limits.admin], [limits.keys.NAME]",
        Limits,
        "Limits of the owners of keys; [Set limits](limits.md) has the roles' defaults.",
    ),
)
VARIABLES = {
    "SIMENV_ACCOUNT": "Account of submissions that name none. Default: the user's first.",
    "SIMENV_APP": "Name of the run that submitted tasks carry. `simenv exec` sets it.",
    "SIMENV_BROKERS": "Folder of the sockets of credential brokers. Default: `/tmp`.",
    "SIMENV_HOME": "Folder of all environments, keys and compiled kernels. Default: `~/.simenv`.",
    "SIMENV_KERNELS": "Folder of compiled kernels. Default: below `SIMENV_HOME`.",
    "SIMENV_LAUNCH_AGENT": "Program that runs a command on another node: `AGENT HOST COMMAND...`.",
    "SIMENV_LOCK": "`0`: `scripts/setup.sh` installs the newest packages, not the locked ones.",
    "SIMENV_MUNGE_SOCKET": "Socket of munged. Default: that of the package.",
    "SIMENV_PYTHON": "Python that a private environment of the QFw plugin is started with.",
    "SIMENV_QOS": "Class of service of submissions that name none. Default: the account's first.",
    "SIMENV_QPM_POOL": "Pool that the QFw plugin serves. Default: all pools as one device.",
    "SIMENV_QPM_PRIVATE": "`yes` or `no`: whether the QFw plugin starts its own environment.",
    "SIMENV_QPM_RESERVATIONS": "`required` or `optional`: whether circuits need a reservation.",
    "SIMENV_QPM_ROLE": "Rights of the QFw plugin in an environment: `client` or `admin`.",
    "SIMENV_QPM_STATEVECTOR_QUBITS": "Widest statevector that the QFw plugin sends. Default: 12.",
    "SIMENV_QPM_TOKEN_FILE": "File of mode 0600 with the token that each QPM call must carry.",
    "SIMENV_QPM_TYPE": "Type bits that the QFw plugin offers.",
    "SIMENV_RESERVATION": "`POOL:NUMBER,...`: reservations of submissions that name none."
    " Set in jobs of Slurm with `--qpu`.",
    "SIMENV_SCRATCH": "Local disk for the journal and results where the home is on a network disk.",
    "SIMENV_SERVICE": "Connection file of an environment, or address of its broker.",
    "SIMENV_SLURM_JOB": "Number of the job of Slurm that the variables of `--qpu` belong to.",
    "SIMENV_SLURM_SET": "Variables that the Slurm plugin set, with a hash of each value.",
    "SIMENV_SYSTEM_PACKAGES": "`0`: scripts install no Debian packages.",
    "SIMENV_TOKEN": "Token of the gateway that the C library uses.",
    "SIMENV_URL": "Address of the gateway that the C library uses; else its socket.",
}


def configuration_page() -> str:
    """Return the page as Markdown."""
    lines = [_INTRODUCTION, "\n## Top level of `simenv.toml`\n", *_table(model.Config)]
    for heading, struct, meaning in _TABLES:
        lines += [f"\n## `{heading}`\n", f"{meaning}\n", *_table(struct)]
    lines += [
        "\n## Environment variables\n",
        "Variables named `SIMENV_QPM_*` are read by the plugin for QFw alone:"
        " see [Run behind QFw](../guides/qfw.md).\n",
        "| variable | meaning |\n|---|---|",
        *(f"| `{name}` | {meaning} |" for name, meaning in sorted(VARIABLES.items())),
    ]
    return "\n".join(lines) + "\n"


def _table(struct: type[msgspec.Struct]) -> Iterator[str]:
    yield "| key | type | default | meaning |\n|---|---|---|---|"
    comments = _comments(struct)
    hints = get_type_hints(struct)
    for field in msgspec.structs.fields(struct):
        if (struct, field.name) in _INTERNAL or _is_table(hints[field.name]):
            continue
        kind = _type_name(hints[field.name])
        value = field.default
        if value is msgspec.NODEFAULT and field.default_factory is not msgspec.NODEFAULT:
            value = field.default_factory()
        default, name = f"`{_literal(value)}`", _RENAMED.get((struct, field.name), field.name)
        yield f"| `{name}` | {kind} | {default} | {comments.get(field.name, '')} |"
    yield from _ADDED.get(struct, ())


def _comments(struct: type[msgspec.Struct]) -> dict[str, str]:
    """Return the comment behind each field in the source of a struct."""
    comments = re.findall(r"^    (\w+): [^#\n]*#[ ](.*)$", inspect.getsource(struct), re.MULTILINE)
    return {name: text.replace("|", "\\|").replace("<", "&lt;") for name, text in comments}


def _is_table(hint: Any) -> bool:
    """Return whether a field is a table of its own, which has a section of its own."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return True
    return any(_is_table(each) for each in getattr(hint, "__args__", ()))


def _type_name(hint: Any) -> str:
    names = {str: "text", int: "integer", float: "number", bool: "boolean"}
    if getattr(hint, "__origin__", None) is dict:
        return "table"
    return names.get(hint, "list of texts")


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    return "[]" if value == () else str(value)
