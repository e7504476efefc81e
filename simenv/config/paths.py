"""Paths of an environment, and the environment variables of its processes."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path, PurePath

import msgspec

from simenv import files
from simenv.config.model import Config, GatewaySettings
from simenv.config.pools import NAME_RULE, check_name
from simenv.errors import DECODE_ERRORS, ConfigError
from simenv.process import find_processes, runs

# File system of a folder: SQLite's live journal must not be on a network file system.
#
# The mount table is text, and parsing it is a pure function.

# File systems that several machines may mount; SQLite's WAL needs memory shared by its users.
NETWORK = frozenset(
    {
        *("nfs", "nfs3", "nfs4", "lustre", "gpfs", "mmfs", "beegfs", "pvfs2", "orangefs", "panfs"),
        *("cifs", "smb3", "smbfs", "ceph", "glusterfs", "9p", "afs", "ncpfs", "ocfs2", "gfs2"),
        *("virtiofs", "wekafs", "vastfs", "daos", "curvefs"),
    }
)
NETWORK_FUSE = (
    *("sshfs", "ceph", "gluster", "beegfs", "s3fs", "gcsfuse", "juicefs", "dfuse", "rclone"),
)
_ESCAPE = re.compile(r"\\([0-7]{3})")


def kind(folder: PurePath, mounts: str) -> str:
    """Return the type of the file system of an absolute folder, from `mounts`, the text of
    /proc/self/mountinfo; "" if no mount contains the folder."""
    best, result = -1, ""
    for line in mounts.splitlines():
        before, dash, after = line.partition(" - ")
        fields = before.split()
        if not dash or len(fields) < 5 or not after:
            continue
        mount = PurePath(_ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4]))
        if (folder == mount or mount in folder.parents) and len(mount.parts) >= best:
            best, result = len(mount.parts), after.split()[0]  # a later mount hides an earlier one
    return result


def is_network(kind: str) -> bool:
    """Return whether a file system type is one that other machines can mount too."""
    name = kind.removeprefix("fuse.").lower()
    return kind in NETWORK or (
        kind.startswith("fuse.") and (name in NETWORK or name.startswith(NETWORK_FUSE))
    )


def kind_of(folder: Path) -> str:
    """Return the file system type of a folder, which need not exist yet; "" if unknown."""
    try:
        return kind(folder.resolve(), Path("/proc/self/mountinfo").read_text())
    except OSError:
        return ""


# Paths of an environment, and the SIMENV_* variables that change them.
#
# Only functions whose docstring says so create folders.

SOCKET_PATH_BYTES = 107  # sun_path less its NUL: unix(7)
# What follows `socket_base`; the first X stands for the user.
_SOCKET_BELOW = "/simenv-sockets-X.12345678/simenv-12345678/direct.sock"


class EnvironmentPaths(msgspec.Struct, frozen=True):
    """Paths of the files and folders of one environment."""

    home: Path  # connection file, config, logs (0700)
    state: Path  # the live journal (0700)

    @property
    def connection(self) -> Path:
        return self.home / "connection.json"

    @property
    def server_key(self) -> Path:
        """File with the environment's own keys and the address at which it listened last."""
        return self.home / "server-key.json"

    @property
    def keys(self) -> Path:
        """File with the keys of users of other machines."""
        return self.home / "keys.json"

    @property
    def gateway(self) -> Path:
        """Folder of the gateway, which its process makes."""
        return self.home / "gateway"

    @property
    def config(self) -> Path:
        return self.home / "config.json"

    @property
    def jobs(self) -> Path:
        """Folder with the jobs at the site of each start of the service that has any."""
        return self.home / "jobs"

    @property
    def joining(self) -> Path:
        """File by which workers find the service of this start."""
        return self.home / "worker.json"

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
        """Copy of the journal, for a start on another machine."""
        return self.home / "journal.copy.db"

    @property
    def mark(self) -> Path:
        """The numbers that were given, see `service.journal.marks`."""
        return self.home / "numbers.mark"

    @property
    def mark_copies(self) -> Path:
        """Path of the mark's copy, but for its end, which is of the journal."""
        return self.home.parent / ".numbers" / self.home.name

    @property
    def telemetry(self) -> Path:
        """Store of telemetry series."""
        return self.home / "telemetry.db"

    @property
    def results(self) -> Path:
        """Folder of the files of large results."""
        return self.state / "results"


class OwnerEndpoint(msgspec.Struct, frozen=True):
    """Address and keys for connections of the environment's own user from another machine that can
    read this file."""

    address: str  # tcp://HOST:PORT
    server_key: str  # public; all keys in ZeroMQ's base 85
    public: str
    secret: str

    def __repr__(self) -> str:
        return f"OwnerEndpoint({self.address})"


class ConnectionFile(msgspec.Struct, frozen=True):
    """Contents of `connection.json`: the addresses of the service. The service renews the mtime of
    the file as long as it runs."""

    format: int
    name: str
    version: str
    pid: int
    node: str
    epoch: int
    sockets: str  # folder of the sockets on its node
    socket_key: str  # public key that the service proves on its node's sockets
    address: str = ""  # for other machines: tcp://HOST:PORT; "": it does not listen
    server_key: str = ""  # public, in ZeroMQ's base 85
    own: OwnerEndpoint | None = None  # None: its own user can connect on its node only
    start_ticks: str = ""  # of the process, in clock ticks since the node's boot; "": not known
    takeover_s: float = 0.0  # in which a standby takes over; 0: there may be none
    standbys: tuple[str, ...] = ()  # addresses for other machines at which standbys will listen


GATEWAY_FORMAT = 1
GATEWAY_FILE = "gateway.json"  # in the folder of the gateway
AUTHORITY_FILE = "authority.pem"  # certificate by which clients check those of the gateway


class GatewayFile(msgspec.Struct, frozen=True):
    """Contents of `gateway/gateway.json` in the environment's home: of the last gateway, which may
    have ended."""

    format: int
    environment: str
    url: str  # without a slash at its end
    pid: int  # 0: its service has opened the port, and the process is not ready
    start_ticks: str  # of the process, see `simenv.process`
    version: str
    socket: str = ""  # path of the Unix socket for programs of this user on this machine
    public_url: str = ""  # for users elsewhere; as `url`


@contextmanager
def gateway_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of an environment's gateway, with the folder of the gateway. Raises ConfigError
    if another process has it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(folder / "lock", flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()} on {os.uname().nodename}".encode())
        yield
    except BlockingIOError as error:
        holder = os.read(descriptor, 100).decode("utf-8", "replace")
        text = f"a gateway of this environment runs already: process {holder or '(unknown)'}"
        hint = "end it, or start the environment without --gateway; see simenv gateway status"
        raise ConfigError(text, hint=hint) from error
    finally:
        os.close(descriptor)


GATEWAY = b"simenv.gateway"  # in the command line of every gateway


def gateways_of_services(home: Path) -> list[int]:
    """Return the pids of the gateways on this machine that services of the environment with this
    home have started; those that `simenv gateway` runs are not among them."""
    return find_processes(GATEWAY, b"\0--epoch\0", b"\0--home\0%s\0" % bytes(home.resolve()))


def last_gateway(folder: Path) -> GatewayFile | None:
    """Read the GatewayFile in the folder of a gateway; None if there is none of this format."""
    try:
        file = msgspec.json.decode((folder / GATEWAY_FILE).read_bytes(), type=GatewayFile)
    except (OSError, *DECODE_ERRORS):
        return None
    return file if file.format == GATEWAY_FORMAT else None


def gateway_url(settings: GatewaySettings, address: tuple[str | int, ...]) -> str:
    """Return the URL, on this machine, of a gateway that listens at an address of
    `socket.getsockname`."""
    return _url(settings, _LOOPBACK.get(str(address[0]), str(address[0])), address[1])


def public_gateway_url(settings: GatewaySettings, address: tuple[str | int, ...]) -> str:
    """Return the URL of the same gateway for users elsewhere: the configured one; else this
    machine's name, where it listens on all interfaces."""
    everywhere = str(address[0]) in _LOOPBACK
    host = os.uname().nodename if everywhere else str(address[0])
    return settings.url.rstrip("/") or _url(settings, host, address[1])


def _url(settings: GatewaySettings, host: str, port: str | int) -> str:
    host = f"[{host}]" if ":" in host else host
    return f"{'https' if settings.tls else 'http'}://{host}:{port}"


def running_gateway(home: Path) -> GatewayFile | None:
    """Return the gateway that runs on this machine for the environment with this home; None if
    there is none."""
    file = last_gateway(EnvironmentPaths(home, home).gateway)
    if file is None or not runs(file.pid, GATEWAY, start_ticks=file.start_ticks):
        return None
    return file


def known_gateway(settings: GatewaySettings, home: Path) -> str:
    """Return the URL at which users reach the gateway of the environment with this home, also
    while it starts; "" if it is to have none, and none runs on this machine."""
    is_started = settings.listen and not settings.url
    paths = EnvironmentPaths(home, home)
    file = last_gateway(paths.gateway) if is_started else running_gateway(home)
    return settings.url.rstrip("/") or ("" if file is None else file.public_url)


_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # where all interfaces are listened at


def gateway_socket(home: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the path of the Unix socket of a gateway: in a folder that no other user can write,
    also while no gateway runs."""
    mark = hashlib.blake2b(bytes(home.resolve()), digest_size=4).hexdigest()
    return lasting_socket_folder(environ) / f"gateway-{mark}.sock"


def last_gateway_port(folder: Path) -> int:
    """Return the port of the last gateway, so that port 0 takes it again; 0: not known."""
    last = last_gateway(folder)
    port = "" if last is None else last.url.rpartition(":")[2]
    return int(port) if port.isdecimal() and len(port) <= len("65535") else 0


def home_root(environ: Mapping[str, str] = os.environ) -> Path:
    """Return SIMENV_HOME, by default ~/.simenv."""
    return Path(environ.get("SIMENV_HOME") or Path.home() / ".simenv").expanduser().absolute()


def devices_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Folder of imported devices, NAME.json each; it may not exist."""
    return home_root(environ) / "devices"


def connection_file(name: str = "default") -> Path:
    """Path of the connection file of an environment. Raises ConfigError if the name is not
    allowed."""
    return home_root() / check_name(name) / "connection.json"


def service_file(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Path of the connection file that SIMENV_SERVICE names; None if it is not set. The name of an
    environment, without a dot, stands for its file, unless there is a file of that name here. The
    address of a broker is returned as it is."""
    named = environ.get("SIMENV_SERVICE")
    if not named:
        return None
    if named.startswith(BROKERS):
        return Path(named)
    path = Path(named).expanduser().absolute()
    if "." not in named and NAME_RULE.match(named) and not path.exists():
        return home_root(environ) / named / "connection.json"
    return path


BROKERS = ("local:", "munge:")  # beginnings of addresses of credential brokers


def broker_base(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder that has a folder of brokers' sockets for each user: SIMENV_BROKERS, by
    default /tmp, because all users of the host must see the same one."""
    return Path(environ.get("SIMENV_BROKERS") or "/tmp")


def broker_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of this user below `broker_base`, which others may enter and not list; see
    `_lasting_folder`."""
    return _lasting_folder(broker_base(environ), BROKER_PREFIX, 0o711, "SIMENV_BROKERS")


def interpreter(environ: Mapping[str, str] = os.environ) -> str:
    """Return the Python that starts services: SIMENV_PYTHON, else this interpreter. Raises
    ConfigError if this process is a program with embedded Python, such as DEFw's, also if it was
    started by a link with the name of an interpreter."""
    named = environ.get("SIMENV_PYTHON")
    if not named and not _is_python(sys.executable):
        raise ConfigError(
            f"cannot start a service with {sys.executable or 'this program'}, which is not Python",
            hint="set SIMENV_PYTHON=/path/to/python3, a Python that has simenv",
        )
    return named or sys.executable


def _is_python(program: str | None) -> bool:
    """Return whether a program is a Python interpreter, by the name of the file behind all links:
    the name of a link says nothing about its target."""
    return bool(program) and "py" in Path(str(program)).resolve().name.lower()


def application(environ: Mapping[str, str] = os.environ) -> str:
    """Name of the run of an application that this process belongs to (SIMENV_APP); "" if none."""
    named = environ.get("SIMENV_APP", "")
    return check_name(named, "SIMENV_APP: an application's") if named else ""


def launch_agent(config: Config, environ: Mapping[str, str] = os.environ) -> str:
    """Return the agent, the program that is called as AGENT HOST COMMAND...: SIMENV_LAUNCH_AGENT,
    else the value in the table [launcher]; "" if neither is set."""
    return environ.get("SIMENV_LAUNCH_AGENT") or config.launcher.agent


def places(config: Config, environ: Mapping[str, str] = os.environ) -> EnvironmentPaths:
    """Return the paths of one environment; nothing is created."""
    home = home_root(environ) / check_name(config.name)
    return EnvironmentPaths(home, state_folder(config, home, environ))


def state_folder(config: Config, home: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the live journal: `state_dir`; else the environment's home, if it is on
    a local disk; else a local folder under SIMENV_SCRATCH, TMPDIR, /var/tmp or /tmp."""
    if config.state_dir:
        return Path(config.state_dir).absolute()
    if config.network_state or not is_network(kind_of(home)):
        return home
    for base in (environ.get("SIMENV_SCRATCH"), environ.get("TMPDIR"), "/var/tmp", "/tmp"):
        if base and not is_network(kind_of(Path(base))) and os.access(base, os.W_OK):
            mark = hashlib.blake2b(str(home).encode(), digest_size=4).hexdigest()
            return Path(base).absolute() / f"simenv-{os.getuid()}" / f"{config.name}-{mark}"
    return home


def socket_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Create a new folder for the sockets of one start of a service, below the lasting one of this
    user. Raises ConfigError if other users could replace it by a folder of theirs."""
    return Path(tempfile.mkdtemp(prefix="simenv-", dir=lasting_socket_folder(environ)))


def lasting_socket_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the 0700 folder of this user below `socket_base`; see `_lasting_folder`."""
    return _lasting_folder(socket_base(environ), "simenv-sockets-", 0o700, "TMPDIR")


BROKER_PREFIX = "simenv-broker-"


def _lasting_folder(base: Path, prefix: str, mode: int, setting: str) -> Path:
    """Return the folder of this user in `base`, whose name begins with `prefix`; the first call
    creates it. It is never removed. A client may outlive its service: in a folder that other users
    can write, one of them could take the names of the service's sockets, and wait for that client.
    Another user may have taken the folder's name before, then it has a random suffix. Raises
    ConfigError."""
    name = f"{prefix}{os.geteuid()}"
    for path in (base / name, *base.glob(f"{name}.*")):
        is_new = not os.path.lexists(path)
        try:
            files.private_folder(path, setting).chmod(mode)
        except (ConfigError, OSError):  # another user's
            if is_new:
                with suppress(OSError):
                    path.rmdir()
        else:
            return path
    built = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=base))
    try:
        files.check_private(built, setting)
        built.chmod(mode)
    except ConfigError:
        built.rmdir()
        raise
    return built


def segment_folder(sockets: Path) -> Path:
    """Folder of the shared-memory segments of MPI ranks, which those that are killed leave behind:
    of the start of a service whose sockets are in the folder `sockets`."""
    return Path("/dev/shm") / sockets.name


def socket_base(environ: Mapping[str, str] = os.environ) -> Path:
    """Return XDG_RUNTIME_DIR if it is a private folder of this user, as its specification requires
    (after `su` it may be another user's), else the system's temporary folder, else /tmp: the first
    that is short enough for the path of a socket."""
    runtime = environ.get("XDG_RUNTIME_DIR")
    bases = [tempfile.gettempdir(), "/tmp"]
    if runtime and os.access(runtime, os.W_OK) and files.weakness(Path(runtime)) is None:
        bases.insert(0, runtime)
    below = _SOCKET_BELOW.replace("X", str(os.geteuid()))
    fits = (base for base in bases if len(os.fsencode(base) + below.encode()) <= SOCKET_PATH_BYTES)
    return Path(next(fits))


def kernel_cache(environ: Mapping[str, str] = os.environ) -> Path:
    """Folder of compiled kernels for all environments of this user: SIMENV_KERNELS (a local disk,
    if homes are on a network file system), by default SIMENV_HOME/kernels."""
    named = environ.get("SIMENV_KERNELS")
    return Path(named).expanduser().absolute() if named else home_root(environ) / "kernels"


def kernel_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Create and check the folder `kernel_cache`. Raises ConfigError if other users can write to
    it."""
    return files.kernel_folder(kernel_cache(environ))


# Environment variables that the service and its workers inherit: one allow-list for both.
#
# The service inherits the variables of its workers, its own settings, and those that it needs to
# reach other nodes as its user. Invariant: no variable identifies a worker as a rank of another MPI
# program. A service that was itself started by mpirun, a PMIx job or srun must not pass on its
# rank: MPI would wait for peers that do not exist. The launcher of a worker adds the MPI variables
# that it needs.

# Paths, and settings of threads and MPI. Nothing else.
WORKER_NAMES = frozenset(
    {
        *("PATH", "HOME", "USER", "LANG", "TMPDIR", "VIRTUAL_ENV", "SIMENV_HOME"),
        *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),  # of machines behind the engine hardware
        *("SIMENV_KERNELS", "XDG_RUNTIME_DIR", "LD_LIBRARY_PATH"),
        *("OPAL_PREFIX", "PMIX_PREFIX", "PRTE_PREFIX"),
    }
)
WORKER_PREFIXES = (
    *("LC_", "OMP_", "NUMBA_", "SLURM_", "PBS_"),
    # A site's settings of MPI, without the variables that identify a rank of another MPI program.
    *("OMPI_MCA_", "OPAL_", "PMIX_MCA_", "PRTE_MCA_", "MPICH_", "I_MPI_"),
    *("UCX_", "FI_", "MPI4PY_"),
)
# The service divides the GPUs that it was granted among its workers.
SERVICE_NAMES = WORKER_NAMES | {"SSH_AUTH_SOCK", "KRB5CCNAME", "CUDA_VISIBLE_DEVICES"}
SERVICE_PREFIXES = ("SIMENV_", *WORKER_PREFIXES)


# Credentials for the site's job manager. Another node gets a worker's environment as an argument of
# a command, which every user of that node can read.
SECRETS = frozenset({"SLURM_JWT", "PBS_JOBCOOKIE"})
# Variables of a step of srun, not of the job. Open MPI takes a process with these variables for one
# that srun started, and asks Slurm for its rank.
STEP_PREFIXES = (
    *("SLURM_STEP", "SLURM_SRUN_", "SLURM_CPU_BIND", "SLURM_MEM_BIND", "SLURM_DISTRIBUTION"),
    *("SLURM_LAUNCH_NODE", "SLURM_UMASK", "SLURM_PMI", "SLURM_MPI_"),
)
STEP = frozenset(
    {
        *("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_GTIDS", "SLURM_TASK_PID"),
        *("SLURM_TASKS_PER_NODE_STEP", "SLURM_NPROCS", "SLURM_NTASKS"),
    }
)
# If one of these is set, the service is a rank of an outer MPI, whose launcher added settings.
OUTER_RANK = ("PMIX_RANK", "PMIX_NAMESPACE", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMI_FD")
MPI_PREFIXES = ("OMPI_", "PMIX_", "PRTE_")
# Libraries of engines: their threads sleep while they wait, and BLAS starts none of its own.
QUIET = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "1"}


def worker_environ(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the allow-listed variables of an environment, and those of QUIET."""
    is_rank = any(name in environ for name in OUTER_RANK)
    inherited = {
        key: value
        for key, value in environ.items()
        if (key in WORKER_NAMES or key.startswith(WORKER_PREFIXES))
        and key not in STEP | SECRETS
        and not key.startswith(STEP_PREFIXES)
        and not (is_rank and key.startswith(MPI_PREFIXES))
    }
    return tuple({**QUIET, **inherited}.items())


def passed_environ(environ: Mapping[str, str], names: str) -> dict[str, str]:
    """Return the variables that `environ` of a pool names, one by one or by `BEGINNING*`."""
    patterns = names.split(",") if names else []
    return {
        key: value
        for key, value in environ.items()
        if any(fnmatchcase(key, pattern) for pattern in patterns)
    }


def gpu_environ(gpu: str) -> tuple[tuple[str, str], ...]:
    """Return the variables that make one GPU, by UUID or number, the only one that CUDA sees."""
    return ("CUDA_DEVICE_ORDER", "PCI_BUS_ID"), ("CUDA_VISIBLE_DEVICES", gpu)


# Messages that a starting service sends to its starter, one JSON object a line.


class StartupError(msgspec.Struct, frozen=True):
    """The reason why the service cannot start; `code` is that of the error class."""

    code: str
    message: str
    hint: str = ""


class StartupMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of the pipe. Each one but the last has `progress`."""

    ready: bool = False  # of `--end`: the environment was not ended before
    error: StartupError | None = None
    progress: str = ""  # the present stage of the start
