"""Settings of an environment as frozen values, with their defaults and checks."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from operator import attrgetter
from urllib.parse import urlsplit

import msgspec

from simenv.config.accounts import check_accounts, check_billing
from simenv.config.limits import LimitSettings
from simenv.config.pools import MAX_BYTES, check_name, check_pool, check_variables, nearest
from simenv.errors import ConfigError
from simenv.model import PoolSpec
from simenv.model.accounts import Account, Billing, Qos
from simenv.model.task_rules import MAX_SECONDS

CONFIG_FORMAT = 1


class HistorySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Retention time of ended tasks: the table [history]."""

    keep_days: float = 30.0  # days after the end of a task


class Results(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Disk space of ended tasks, result files and journal together: the table [results]."""

    keep_gib: float = 20.0  # GiB of result files and journal together
    keep_free_gib: float = -1.0  # GiB of the disk kept free; below 0: 5 %, at least 1 GiB


class Policies(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Queue policy and admission policy of one pool: a table [policies.POOL]. "" leaves the present
    policy as it is."""

    queue: str = ""  # priority, fair_share, fifo, ordered, round_robin
    keys: tuple[str, ...] = ()  # sort keys of ordered
    admission: str = ""  # unlimited, credit, rate
    credits: int = 0  # with credit: total units
    rate: int = 0  # with rate: units in each time span
    span_s: float = 0.0  # with rate: the time span


class Launching(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Launcher of workers: the table [launcher]."""

    use: str = "auto"  # auto, prte, mpirun, local
    agent: str = ""  # runs a command on a host: AGENT HOST COMMAND...; "": srun or ssh
    nodes_per_dvm: int = 0  # largest number of nodes of one DVM; 0: one DVM for all
    interface: str = ""  # network interface for workers of other nodes; "": by host name
    port: int = 0  # TCP port of that interface, for workers and nodes of jobs; 0: any free one


class IdentitySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Users of the site, who need no key file: the table [identity]."""

    use: tuple[str, ...] = ("keys",)  # of keys, local (users of this host), munge (of all nodes)
    users: tuple[str, ...] = ()  # names, and @group: the members of a group; besides [accounts]
    admins: tuple[str, ...] = ()  # names and @groups with the role admin
    lifetime_s: float = 900.0  # of a certificate; clients renew theirs
    listen: str = ""  # tcp://HOST:PORT of the broker for other nodes, with munge

    @property
    def has_users(self) -> bool:
        """True if users of the site may get certificates."""
        return "local" in self.use or "munge" in self.use


class GatewaySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The environment over HTTP: the table [gateway]."""

    listen: str = ""  # HOST:PORT (port 0: any); "": started by `simenv up --gateway` alone
    url: str = ""  # that users open, such as that of a proxy; "": that of the gateway's machine
    tls: bool = True  # false: tokens go over plain HTTP, on loopback or behind proxies alone
    tls_certificate: str = ""  # PEM file; "": one of the environment's own authority
    tls_key: str = ""  # PEM file
    proxies: tuple[str, ...] = ()  # addresses whose X-Forwarded-* headers are used
    metrics: str = ""  # HOST:PORT of /metrics alone; "": only below the gateway's address
    max_request_bytes: int = 64 * 2**20  # of one body
    max_connections: int = 1_000  # of clients at once
    max_processes: int = 4  # of users' jobs that a client of IBM's has sent
    requests_per_s: float = 200.0  # of one caller, after a burst of ten seconds' worth; 0: no bound
    keep_days: float = 30.0  # jobs of IBM's clients, and their results
    access_log: bool = False  # a line for each request, not for refusals alone


class DeviceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Calibration data of an emulated device, fetched by a command: the table [devices.NAME]."""

    refresh: tuple[str, ...] = ()  # command that prints the data, as one text or as its words
    every_h: float = 12.0  # hours between two refreshes
    format: str = "auto"  # of the data, as `simenv devices import --format`
    timeout_s: float = 300.0  # of the command
    environ: str = ""  # variables of `simenv up` that the command reads: "LAB_TOKEN,LAB_URL"
    allow_ignored: bool = False  # accept fields that look like noise and are not read


class HookSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Commands that run when events happen: the table [hooks]."""

    # By kind of event, such as "node.lost" or "node.*": a command, as one text or as its words.
    on: dict[str, tuple[str, ...]] = {}
    timeout_s: float = 30.0  # of one command, which is ended then


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of one start of the service."""

    name: str = "default"
    durability: str = "accepted"  # process, accepted or power
    pools: tuple[PoolSpec, ...] = (PoolSpec(),)
    slots: int = 0  # of this machine; 0: the cores that affinity and cgroups leave
    memory_bytes: int = 0  # for simulators; 0: 80 % of the available memory
    state_dir: str = ""  # folder of the live journal and results; "": chosen by file system
    journal: str = ""  # postgresql://USER@HOST/DATABASE; "": a file of SQLite in the state folder
    leader_lease_s: float = 8.0  # with PostgreSQL: a standby leads after a silence of that length
    overcommit: bool = False  # start more workers than the nodes hold; for tests
    network_state: bool = False  # allow a state folder on a network file system
    max_queued_tasks: int = 2_000_000  # unfinished tasks of all owners
    max_queued_bytes: int = 2 * 2**30  # of programs and parameter values of all owners
    max_service_bytes: int = 0  # of the service, which then takes no tasks; 0: 1/4 of the memory
    worker_lease_s: float = 15.0  # a worker without renewal of its lease ends itself
    silent_s: float = 10.0  # a worker without a heartbeat for this time is lost
    start_timeout_s: float = 60.0  # for workers to become ready
    drain_timeout_s: float = 30.0  # for running tasks when the environment ends
    checkpoint_s: float = 600.0  # interval of checkpoints of wide runs; 0: none
    listen: str = ""  # tcp://HOST:PORT for other machines (port 0: any); "": this machine only
    launcher: Launching = Launching()
    hosts: str = ""  # "node1:2,node2:2"; "": the allocation, else this machine
    hostfile: str = ""  # file with one host a line, "node1 slots=2"
    memory_per_slot: int = 0  # bytes that one rank may hold; 0: by the memory of its node
    history: HistorySettings = HistorySettings()
    results: Results = Results()
    limits: LimitSettings = LimitSettings()
    policies: dict[str, Policies] = {}  # by pool; "all": the whole environment
    accounts: dict[str, Account] = {}  # [accounts.NAME]; {}: no accounts
    qos: dict[str, Qos] = {}  # [qos.NAME]
    billing: Billing = Billing()
    isolation: str = "none"  # none; account: a worker serves one account at a time
    isolation_uids: str = ""  # FIRST-LAST: a user id for each account; "": root's of /etc/subuid
    removed_users: str = "keep"  # waiting tasks of users without an account: keep, hold, cancel
    removed_hold_s: float = 86_400.0  # after so long held tasks are cancelled
    identity: IdentitySettings = IdentitySettings()
    gateway: GatewaySettings = GatewaySettings()
    devices: dict[str, DeviceSettings] = {}  # [devices.NAME]
    hooks: HookSettings = HookSettings()
    resume: bool = False  # refuse to start without a journal; use its copy if that is newer
    force_lock: bool = False  # ignore the lock of a service on another machine
    import_from: tuple[str, ...] = ()  # folders of providers' modules, besides installed packages
    lifeline: bool = False  # end when the starter's pipe closes (private environments)
    faults: str = ""  # for fault injection: "point:nth,..."; see simenv.service.fault_injection
    format: int = CONFIG_FORMAT


ALL = "all"  # the whole environment, in place of a pool
QUEUE_POLICIES = ("priority", "fair_share", "fifo", "ordered", "round_robin")
QUEUE_KEYS = ("priority", "shortest", "longest", "fifo")
ADMISSION_POLICIES = ("unlimited", "credit", "rate")
_FIGURE_LIMITS = {"credits": 2**62, "rate": 2**62, "span_s": MAX_SECONDS}
_FIGURES = {"": (), "unlimited": (), "credit": ("credits",), "rate": ("rate", "span_s")}


def check_policies(name: str, policies: Policies, pools: Iterable[str], source: str) -> None:
    """Check the policies of one pool. Raises ConfigError, which names the key, the value and the
    allowed values."""
    subject = f"{source}: policies.{name[:64]}"
    pool_names = (ALL, *pools)
    if name not in pool_names:
        raise ConfigError(f"{subject}: there is no such pool", hint=nearest(name, pool_names))
    if policies.queue and policies.queue not in QUEUE_POLICIES:
        raise _unknown(f"{subject}: queue", policies.queue, QUEUE_POLICIES)
    if policies.keys and policies.queue != "ordered":
        raise ConfigError(f"{subject}: keys go with queue = 'ordered' alone", hint="leave keys out")
    if len(set(policies.keys)) < len(policies.keys):
        raise ConfigError(f"{subject}: a key is given twice", hint="give each key once")
    for key in policies.keys:
        if key not in QUEUE_KEYS:
            raise _unknown(f"{subject}: keys", key, QUEUE_KEYS)
    if policies.admission and policies.admission not in ADMISSION_POLICIES:
        raise _unknown(f"{subject}: admission", policies.admission, ADMISSION_POLICIES)
    for figure, limit in _FIGURE_LIMITS.items():
        value = getattr(policies, figure)
        if not abs(value) <= limit:
            raise ConfigError(f"{subject}: {figure} is outside 0 .. {limit}")
        belongs = figure in _FIGURES[policies.admission]
        if value < 0 or bool(value) != belongs:
            text = f"{subject}: {figure} = {value} with admission ="
            text += f" {policies.admission or 'not set'!r}"
            hint = "credit needs credits; rate needs rate and span_s; unlimited takes no figures"
            raise ConfigError(text, hint=hint)


def _unknown(subject: str, value: str, choices: tuple[str, ...]) -> ConfigError:
    return ConfigError(f"{subject} = {value[:64]!r} is not known", hint=nearest(value, choices))


SCHEMA_NAME_CHARS = 56  # of an environment whose journal is in PostgreSQL
EVERYWHERE = "everywhere"  # the word for all interfaces
_CHOICES = {
    "durability": ("accepted", "process", "power"),
    "isolation": ("none", "account"),
    "removed_users": ("keep", "hold", "cancel"),
}
LAUNCHERS = ("auto", "prte", "mpirun", "local")
MAX_NODES = 4_096
MAX_LINE_CHARS = 65_536
LEAST_PER_SLOT = 2**24  # bytes: a rank's own buffers need as much
_HOST = r"[A-Za-z0-9_][A-Za-z0-9_.-]*(\[[0-9,-]+\][A-Za-z0-9_.-]*)*(:\d{1,5})?"
_HOSTS = re.compile(rf"{_HOST}(,{_HOST})*\Z")
# Heartbeats come once a second at most, and 2.5 times in `silent_s` at least, whatever the lease
# is: fewer than two lost ones do not show that a worker is lost.
_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("slots", 0, 4096),
    ("memory_bytes", 0, MAX_BYTES),
    ("memory_per_slot", 0, MAX_BYTES),
    ("max_queued_tasks", 1, 10**8),
    ("max_queued_bytes", 2**20, 2**50),
    ("max_service_bytes", 0, MAX_BYTES),
    ("worker_lease_s", 3.0, 3600.0),
    ("silent_s", 3.0, 3600.0),
    ("start_timeout_s", 1.0, 3600.0),
    ("leader_lease_s", 1.0, 600.0),
    ("drain_timeout_s", 0.0, 86400.0),
    ("checkpoint_s", 0.0, 1e7),
    ("history.keep_days", 0.0, 36_500.0),
    ("results.keep_gib", 0.001, 2.0**30),
    ("results.keep_free_gib", -1.0, 2.0**30),
    ("launcher.nodes_per_dvm", 0, MAX_NODES),
    ("launcher.port", 0, 65_535),
    ("removed_hold_s", 0.0, 1e8),
    ("identity.lifetime_s", 5.0, 86_400.0),
    ("gateway.max_request_bytes", 2**16, 2**32),
    ("gateway.max_connections", 1, 65_536),
    ("gateway.max_processes", 0, 1_024),
    ("gateway.requests_per_s", 0.0, 1e6),
    ("gateway.keep_days", 0.0, 36_500.0),
)


def listen_parts(listen: str, setting: str = "listen") -> tuple[str, int]:
    """Return the host and the port of `tcp://HOST:PORT`. Raises ConfigError, which names `setting`,
    if `listen` has another form or means all interfaces."""
    scheme, _, rest = listen.partition("://")
    host, _, port = rest.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if (
        scheme != "tcp"
        or not host
        or not (port.isascii() and port.isdecimal())
        or len(port) > 5
        or int(port) > 65_535
    ):
        hint = "tcp://HOST:PORT; HOST is an interface (eth0), a name or an IP address of this "
        hint += "machine, port 0 takes any"
        raise ConfigError(f"{setting} = {listen[:80]!r} is not an address to listen on", hint=hint)
    if is_any_address(host):
        text = f"{setting} = {listen!r} would open every interface of this machine"
        hint = f"name one interface; to open all of them: tcp://{EVERYWHERE}:{port}"
        raise ConfigError(text, hint=hint)
    return host, int(port)


def is_any_address(host: str) -> bool:
    """Return whether a host means all interfaces, in any spelling: `*`, `0`, `0x0`, `0.0`, `::0`,
    `::ffff:0.0.0.0`. getaddrinfo reads the old spellings of inet_aton(3) too."""
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
    """Check a configuration. Raises ConfigError, which names the key, the value and the allowed
    values."""
    check_name(config.name)
    for key, choices in _CHOICES.items():
        value = getattr(config, key)
        if value not in choices:
            hint = f"one of: {', '.join(choices)}"
            raise ConfigError(f"{source}: {key} {value[:80]!r} is not known", hint=hint)
    for key, low, high in _BOUNDS:
        value = attrgetter(key)(config)
        if not low <= value <= high:
            raise ConfigError(f"{source}: {key} = {value} is outside {low} .. {high}")
    if config.isolation_uids and config.isolation != "account":
        text = f"{source}: isolation_uids goes with isolation = 'account' alone"
        raise ConfigError(text, hint="leave isolation_uids out")
    if config.listen:
        listen_parts(config.listen)
    if config.journal:
        _check_journal(config, source)
    names = [pool.name for pool in config.pools]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"{source}: pools need distinct names, got {names}")
    if ALL in names:
        text = f"{source}: a pool cannot be named {ALL!r}: policies and drains mean the environment"
        raise ConfigError(text, hint="name = 'main'")
    for pool in config.pools:
        check_pool(pool, source)
        if pool.jobs is not None and config.isolation == "account":
            text = f"{source}: pool {pool.name!r} has {pool.jobs.system}, and isolation = 'account'"
            raise ConfigError(text, hint="accounts are isolated on nodes of the allocation alone")
    for name, policies in config.policies.items():
        check_policies(name, policies, names, source)
    check_accounts(config.accounts, config.qos, source)
    check_billing(config.billing, names, source)
    _check_identity(config, source)
    check_gateway(config.gateway, source)
    for device, settings in config.devices.items():
        check_device(device, settings, f"{source}: devices.{device[:64]}")
    check_hooks(config.hooks, f"{source}: hooks")
    _check_launching(config, source)


def _check_journal(config: Config, source: str) -> None:
    url, longest = config.journal, SCHEMA_NAME_CHARS
    if len(config.name) > longest:
        text = (
            f"{source}: name {config.name!r} has {len(config.name)} characters, at most {longest}"
        )
        hint = "its journal is in a schema simenv_NAME, and PostgreSQL cuts names at 63 bytes"
        raise ConfigError(text, hint=hint)
    form = "postgresql://USER@HOST/DATABASE"
    if not url.startswith(("postgresql://", "postgres://")) or not url.isprintable():
        raise ConfigError(f"{source}: journal is no URL of a database", hint=form)
    with suppress(ValueError):
        if urlsplit(url).password is None and "password=" not in url:
            return
    text = f"{source}: the URL of the journal has a password, or cannot be read"
    raise ConfigError(text, hint=f"{form}; the password goes into ~/.pgpass, mode 0600")


IDENTITIES = ("keys", "local", "munge")
USER_RULE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,63}\Z")  # names of accounts and groups


def _check_identity(config: Config, source: str) -> None:
    settings = config.identity
    for value in settings.use:
        if value not in IDENTITIES:
            raise _unknown(f"{source}: identity.use", value, IDENTITIES)
    for name in (*settings.users, *settings.admins):
        if not USER_RULE.match(name.removeprefix("@")):
            hint = "the name of an account, such as ana, or of a group, such as @chem"
            raise ConfigError(f"{source}: identity: {name[:80]!r} is no user", hint=hint)
    if not settings.has_users:
        return
    if not (settings.users or settings.admins or config.accounts):
        hint = 'users = ["ana", "@chem"] in the table [identity], or accounts'
        raise ConfigError(f"{source}: identity.use names users, and there are none", hint=hint)
    if "munge" in settings.use and not (config.listen and settings.listen):
        hint = "listen, and listen of the table [identity] with another port"
        raise ConfigError(f"{source}: identity.use = munge needs two addresses", hint=hint)
    if settings.listen and not listen_parts(settings.listen, "identity.listen")[1]:
        raise ConfigError(
            f"{source}: identity.listen = {settings.listen[:80]!r} has no fixed port",
            hint="name one: users type it, munge:OWNER@HOST:PORT/NAME",
        )


_EVERY_H, _TIMEOUT_S = (0.01, 8_784.0), (1.0, 3_600.0)


def check_device(name: str, settings: DeviceSettings, subject: str) -> None:
    """Check a table [devices.NAME]. Raises ConfigError."""
    check_name(name, "device")
    hint = 'refresh = "PROGRAM ARGUMENT ..." prints the data; there is no shell'
    _check_command(settings.refresh, f"{subject}: refresh", hint)
    _check_span(settings.every_h, _EVERY_H, f"{subject}: every_h")
    _check_span(settings.timeout_s, _TIMEOUT_S, f"{subject}: timeout_s")
    check_variables(settings.environ, subject)


KIND_RULE = re.compile(r"[a-z*?]+(\.[a-z_*?]+)*\Z")  # of events, with the wildcards of the shell
MAX_HOOKS = 32


def commands_of(config: Config) -> dict[str, str]:
    """Return the programs of others that settings name, by setting: whoever wrote the settings
    decides what runs."""
    found = {f"hooks.on.{kind}": " ".join(words) for kind, words in config.hooks.on.items()}
    for name, device in config.devices.items():
        found[f"devices.{name}.refresh"] = " ".join(device.refresh)
    for pool in config.pools:
        found[f"pools.{pool.name}.command"] = pool.command
    found["launcher.agent"] = config.launcher.agent
    return {setting: text for setting, text in found.items() if text}


def check_hooks(settings: HookSettings, subject: str) -> None:
    """Check the table [hooks]. Raises ConfigError."""
    if len(settings.on) > MAX_HOOKS:
        raise ConfigError(f"{subject}: on has {len(settings.on)} commands, {MAX_HOOKS} are allowed")
    for kind, words in settings.on.items():
        if not KIND_RULE.match(kind):
            hint = "simenv events lists kinds; node.* names several"
            raise ConfigError(f"{subject}: on: {kind[:64]!r} is no kind of event", hint=hint)
        hint = f'on = {{"{kind}" = "PROGRAM ARGUMENT ..."}}; there is no shell'
        _check_command(words, f"{subject}: on.{kind}", hint)
    _check_span(settings.timeout_s, _TIMEOUT_S, f"{subject}: timeout_s")


def _check_command(words: tuple[str, ...], subject: str, hint: str) -> None:
    if not words or not words[0] or sum(map(len, words)) > MAX_LINE_CHARS:
        raise ConfigError(f"{subject} is not a command", hint=hint)
    if not all(map(str.isprintable, words)):
        raise ConfigError(f"{subject} has a character that cannot be printed")


def _check_span(value: float, span: tuple[float, float], subject: str) -> None:
    low, high = span
    if not low <= value <= high:
        raise ConfigError(f"{subject} = {value} is outside {low} .. {high}")


def check_gateway(settings: GatewaySettings, source: str) -> None:
    """Check the table [gateway]. Raises ConfigError."""
    for key in ("listen", "metrics"):
        if getattr(settings, key):
            web_address(getattr(settings, key), f"{source}: gateway.{key}")
    if settings.url:
        check_web_url(settings.url, f"{source}: gateway.url")
    if bool(settings.tls_certificate) != bool(settings.tls_key):
        hint = "tls_certificate and tls_key, PEM files both"
        raise ConfigError(f"{source}: gateway: TLS needs two files", hint=hint)
    for proxy in settings.proxies:
        try:
            ipaddress.ip_network(proxy)
        except ValueError as error:
            hint = "10.0.0.7, or 10.0.0.0/24"
            text = f"{source}: gateway.proxies: {proxy[:80]!r} is no IP address"
            raise ConfigError(text, hint=hint) from error
    if settings.tls_certificate and not settings.tls:
        hint = "leave out `tls = false`, or the files"
        raise ConfigError(f"{source}: gateway: tls_certificate without TLS", hint=hint)
    # Metrics have no tokens, and no TLS of the environment's own.
    for key, has_tls in (("listen", settings.tls), ("metrics", bool(settings.tls_certificate))):
        value = getattr(settings, key)
        is_open = bool(value) and not is_loopback(web_address(value)[0])
        if is_open and not (has_tls or settings.proxies):
            raise ConfigError(
                f"{source}: gateway.{key} = {value!r} would be open to the network without TLS",
                hint="tls_certificate and tls_key, or proxies: the addresses of those that end TLS",
            )


def web_address(listen: str, setting: str = "gateway.listen") -> tuple[str, int]:
    """Return the host and the port of `HOST:PORT`. Raises ConfigError like `listen_parts`."""
    host, port = listen_parts(f"tcp://{listen}", setting)
    return ("0.0.0.0" if host == EVERYWHERE else host), port


def check_web_url(url: str, setting: str) -> str:
    """Return the URL of a gateway without a slash at its end. Raises ConfigError for another text
    than scheme, host and port."""
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or not _URL.fullmatch(url) or parts.username is not None:
        hint = "https://HOST or https://HOST:PORT"
        raise ConfigError(f"{setting} = {url[:80]!r} is no address of a gateway", hint=hint)
    return url.rstrip("/")


_URL = re.compile(r"https?://[^/?#\s\x00-\x1f]+/?")


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address; names but localhost count as open."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _check_launching(config: Config, source: str) -> None:
    launcher = config.launcher
    if launcher.use not in LAUNCHERS:
        hint = nearest(launcher.use, LAUNCHERS)
        raise ConfigError(f"{source}: launcher {launcher.use[:80]!r} is not known", hint=hint)
    for key in ("launcher.agent", "launcher.interface", "hostfile"):
        text = attrgetter(key)(config)
        if not text.isprintable() or len(text) > MAX_LINE_CHARS:
            raise ConfigError(f"{source}: {key} = {text[:80]!r} is not one line of text")
    if config.hosts and config.hostfile:
        hint = "give one of them"
        raise ConfigError(f"{source}: hosts cannot be combined with hostfile", hint=hint)
    if config.hosts and not (len(config.hosts) <= MAX_LINE_CHARS and _HOSTS.match(config.hosts)):
        text = f"{source}: hosts = {config.hosts[:80]!r} is not a list of hosts"
        raise ConfigError(text, hint="node1:2,node2:2 (slots after the colon), or node[1-4]:2")
    if 0 < config.memory_per_slot < LEAST_PER_SLOT:
        text = f"{source}: memory_per_slot = {config.memory_per_slot} is less than {LEAST_PER_SLOT}"
        raise ConfigError(text, hint="a size such as 512MiB")
