"""What an environment was told: `simenv.toml` and SIMENV_* variables -> one frozen Config.

The only reader of SIMENV_* variables. Later words win: defaults, what the last start was told
(where its journal is still there), `simenv.toml`, the call's options. A resolved Config is written
as JSON for the service process, whose only argument is that file.
"""

from __future__ import annotations

from simenv.config.load import convert, import_folders, kept, load, read, write
from simenv.config.model import (
    CONFIG_FORMAT,
    EVERYWHERE,
    Config,
    History,
    Launching,
    Limits,
    Policies,
    Results,
    is_any_address,
    listen_parts,
)
from simenv.config.paths import (
    ConnectionFile,
    EnvironmentPaths,
    OwnerEndpoint,
    application,
    connection_file,
    home_root,
    interpreter,
    kernel_cache,
    kernel_folder,
    launch_agent,
    places,
    service_file,
    socket_base,
    socket_folder,
    state_folder,
)
from simenv.config.pools import pool_of, pool_text
from simenv.config.syntax import NAME_RULE, check_name, size

__all__ = [
    "CONFIG_FORMAT",
    "EVERYWHERE",
    "NAME_RULE",
    "Config",
    "ConnectionFile",
    "EnvironmentPaths",
    "History",
    "Launching",
    "Limits",
    "OwnerEndpoint",
    "Policies",
    "Results",
    "application",
    "check_name",
    "connection_file",
    "convert",
    "home_root",
    "import_folders",
    "interpreter",
    "is_any_address",
    "kept",
    "kernel_cache",
    "kernel_folder",
    "launch_agent",
    "listen_parts",
    "load",
    "places",
    "pool_of",
    "pool_text",
    "read",
    "service_file",
    "size",
    "socket_base",
    "socket_folder",
    "state_folder",
    "write",
]
