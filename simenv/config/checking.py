"""Which figures, names and addresses an environment can be told, and what is said otherwise."""

from __future__ import annotations

import ipaddress
import re
import socket
from contextlib import suppress
from operator import attrgetter

from simenv.config.names import check_name, nearest
from simenv.config.policies import check_policies
from simenv.config.pools import check_pool
from simenv.config.sizes import MAX_BYTES
from simenv.config.values import Config
from simenv.errors import ConfigError

EVERYWHERE = "everywhere"  # the word for all interfaces
DURABILITIES = ("accepted", "process", "power")
LAUNCHERS = ("auto", "prte", "mpirun", "local")
MAX_NODES = 4_096
MAX_LINE_CHARS = 65_536
LEAST_PER_SLOT = 2**24  # a rank's own buffers need as much
_HOST = r"[A-Za-z0-9_][A-Za-z0-9_.-]*(\[[0-9,-]+\][A-Za-z0-9_.-]*)*(:\d{1,5})?"
_HOSTS = re.compile(rf"{_HOST}(,{_HOST})*\Z")
# Beats come every second: fewer than three prove nothing.
_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("slots", 0, 4096),
    ("memory_bytes", 0, MAX_BYTES),
    ("memory_per_slot", 0, MAX_BYTES),
    ("max_queued_tasks", 1, 10**8),
    ("max_queued_bytes", 2**20, 2**50),
    ("worker_lease_s", 3.0, 3600.0),
    ("silent_s", 3.0, 3600.0),
    ("start_timeout_s", 1.0, 3600.0),
    ("drain_timeout_s", 0.0, 86400.0),
    ("checkpoint_s", 0.0, 1e7),
    ("history.keep_days", 0.0, 36_500.0),
    ("results.keep_gib", 0.001, 2.0**30),
    ("results.keep_free_gib", -1.0, 2.0**30),
    ("launcher.nodes_per_dvm", 0, MAX_NODES),
)


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
    if is_any_address(host):
        raise ConfigError(
            f"listen = {listen!r} would open every interface of this machine",
            hint=f"name one; if all are meant: tcp://{EVERYWHERE}:{port}",
        )
    return host, int(port)


def is_any_address(host: str) -> bool:
    """Does this host mean all interfaces? However it is written: `*`, `0`, `0x0`, `0.0`, `::0`,
    `::ffff:0.0.0.0`; getaddrinfo reads the old spellings of inet_aton(3) too."""
    if host == "*":
        return True
    bare = host.partition("%")[0]
    with suppress(OSError):
        return socket.inet_aton(bare) == bytes(4)
    with suppress(ValueError):
        address = ipaddress.ip_address(bare)
        mapped = getattr(address, "ipv4_mapped", None)
        return address.is_unspecified or (mapped is not None and mapped.is_unspecified)
    return False


def check(config: Config, source: str) -> None:
    """ConfigError names the key, the value and what is allowed."""
    check_name(config.name)
    if config.durability not in DURABILITIES:
        raise ConfigError(
            f"{source}: durability {config.durability!r} is not known",
            hint=f"one of: {', '.join(DURABILITIES)}",
        )
    for key, low, high in _BOUNDS:
        value = attrgetter(key)(config)
        if not low <= value <= high:
            raise ConfigError(f"{source}: {key} = {value} is outside {low} .. {high}")
    if config.listen:
        listen_parts(config.listen)
    names = [pool.name for pool in config.pools]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"{source}: pools need distinct names, got {names}")
    for pool in config.pools:
        check_pool(pool, source)
    for name, policies in config.policies.items():
        check_policies(name, policies, names, source)
    _check_launching(config, source)


def _check_launching(config: Config, source: str) -> None:
    launcher = config.launcher
    if launcher.use not in LAUNCHERS:
        raise ConfigError(
            f"{source}: launcher {launcher.use[:80]!r} is not known",
            hint=nearest(launcher.use, LAUNCHERS),
        )
    for key in ("launcher.agent", "launcher.interface", "hostfile"):
        word = attrgetter(key)(config)
        if not word.isprintable() or len(word) > MAX_LINE_CHARS:
            raise ConfigError(f"{source}: {key} = {word[:80]!r} is not one line of text")
    if config.hosts and config.hostfile:
        raise ConfigError(f"{source}: hosts beside hostfile", hint="one of them says all nodes")
    if config.hosts and not (len(config.hosts) <= MAX_LINE_CHARS and _HOSTS.match(config.hosts)):
        raise ConfigError(
            f"{source}: hosts = {config.hosts[:80]!r} is not a list of hosts",
            hint="node1:2,node2:2 (slots after the colon), or node[1-4]:2",
        )
    if 0 < config.memory_per_slot < LEAST_PER_SLOT:
        raise ConfigError(
            f"{source}: memory_per_slot = {config.memory_per_slot} is less than {LEAST_PER_SLOT}",
            hint="a size such as 512MiB",
        )
