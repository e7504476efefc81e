"""What an environment was told: `simenv.toml` and SIMENV_* variables -> one frozen Config.

The only reader of SIMENV_* variables. Later words win: defaults, what the last start was told
(where its journal is still there), `simenv.toml`, the call's options. A resolved Config is written
as JSON for the service process, whose only argument is that file.
"""

from __future__ import annotations

from simenv.config.checking import EVERYWHERE, is_any_address, listen_parts
from simenv.config.names import NAME_RULE, check_name
from simenv.config.places import (
    ConnectionFile,
    OwnDoor,
    Places,
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
from simenv.config.reading import convert, import_folders, kept, load, read, write
from simenv.config.sizes import size
from simenv.config.values import (
    CONFIG_FORMAT,
    Config,
    History,
    Launching,
    Limits,
    Policies,
    Results,
)

__all__ = [
    "CONFIG_FORMAT",
    "EVERYWHERE",
    "NAME_RULE",
    "Config",
    "ConnectionFile",
    "History",
    "Launching",
    "Limits",
    "OwnDoor",
    "Places",
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
