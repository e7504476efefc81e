"""Checks of `simenv doctor`: machine, launchers, folders, and security.

The machine: cores, memory and GPUs that this process may use. The start of workers: nodes of the
allocation, launch agent, launchers. Folders that simenv writes to: file system, free space, stale
files, file modes. Security: the promises of docs/reference/security.md against other users of this
machine.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from launcher import probe, selection
from launcher.allocation.discover import discover
from launcher.allocation.this_node import is_this_node, this_node
from launcher.base import AllocationError, Gpu
from launcher.probe import mpi4py_version
from launcher.process import cgroup, network_namespace
from launcher.process.agent import remote_command
from launcher.prte import installation
from launcher.prte.dvm_supervisor import NodeProbe
from simenv import config, files
from simenv.cli import terminal
from simenv.cli.admin.doctor_installation import DoctorFinding, found
from simenv.client.connection import address
from simenv.config import Config, paths
from simenv.errors import ConfigError, NoServiceError
from simenv.sandbox import confinement, private_namespaces, restricted_calls, system_calls
from simenv.wire.transport.zmq_transport import (
    CLIENT_SOCKET,
    CLIENT_STREAM,
    WORKER_STREAM,
)
from simulators import catalog
from simulators.catalog import costs

LEAST_FREE_BYTES = 2**30
_NAMESPACES = "allow user namespaces (user.max_user_namespaces, AppArmor)"
_ACCOUNT_USERS = "run the service as root with isolation_uids, see docs/reference/security.md"
_ISOLATION_REMEDY = "simenv up with isolation = 'none', or on a kernel with Landlock"
_DELEGATION = "systemd-run --user --scope -p Delegate=yes simenv up"


def cores() -> Iterator[DoctorFinding]:
    """Compare the usable cores (affinity and cgroup quota) with those of the machine and its
    load."""
    node, num_cpus = this_node(), os.cpu_count() or 1
    detail = f"{node.slots} of {num_cpus} cores are usable"
    load = os.getloadavg()[0]
    if load > num_cpus:
        detail += f", but {load:.1f} threads want to run"
    yield found("cores", detail, "top -o %CPU" if load > num_cpus else "")


def memory() -> Iterator[DoctorFinding]:
    """Report the memory limit, the free memory, and the widest circuit that it holds."""
    import psutil

    limit = this_node().memory_bytes
    free = min(limit, psutil.virtual_memory().available)
    engine = next(card for card in catalog.CARDS if card.auto is not None)
    width = engine.max_qubits_in(free)
    detail = f"{terminal.size(free)} free of {terminal.size(limit)}: circuits up to {width} qubits"
    yield found("memory", detail, "top -o %MEM" if free < LEAST_FREE_BYTES else "")


def gpus() -> Iterator[DoctorFinding]:
    """Report the GPUs granted to this process, and what the engine `gpu` lacks to use them."""
    from simulators.gpu.devices.detect import find_gpu, refusal
    from simulators.gpu.devices.nvrtc import load_nvrtc

    evidence = find_gpu()
    reason = refusal(evidence)
    if reason is not None:
        yield found("gpu", reason[0], reason[1] if evidence.has_driver else "")
        return
    for gpu in this_node().gpu_details:
        yield found("gpu", _described(gpu))
    if load_nvrtc() is None:
        detail = "NVRTC is not installed: kernels can be run only where they are compiled"
        yield found("gpu", detail, catalog.builtin_card("gpu").package.install)


def _described(gpu: Gpu) -> str:
    if not gpu.memory_bytes:
        return f"{gpu.uuid}: its memory is not known: NVML is not installed"
    double, single = (
        costs.widest_state(gpu.memory_bytes, precision) for precision in ("double", "single")
    )
    major, minor = gpu.capability
    return (
        f"{gpu.uuid}: {gpu.model}, {terminal.size(gpu.memory_bytes)}, sm_{major}{minor}: circuits"
        f" up to {double} qubits, {single} in single precision"
    )


SHOWN_NODES = 8
_LOOK_S = 0.02


def nodes() -> Iterator[DoctorFinding]:
    """Report the allocation, and check which of its nodes the agent reaches."""
    try:
        allocation = discover(os.environ)
    except AllocationError as error:
        yield DoctorFinding("fail", "nodes", str(error), error.hint)
        return
    names = [node.name for node in allocation.nodes]
    shown = ", ".join(names[:SHOWN_NODES]) + (", ..." if len(names) > SHOWN_NODES else "")
    count = terminal.counted(len(names), "node")
    slots, memory = allocation.slots, terminal.size(allocation.memory_bytes)
    yield found("nodes", f"{allocation.source}: {count} ({shown}), {slots} slots, {memory}")
    yield from _agent([name for name in names if not is_this_node(name)])


def _agent(others: list[str]) -> Iterator[DoctorFinding]:
    agent = config.launch_agent(Config())
    program = remote_command(others[0] if others else "HOST", ["true"], os.environ, agent)[0]
    if shutil.which(program) is None:
        detail = f"{program} is not here: no way to other nodes"
        remedy = "export SIMENV_LAUNCH_AGENT=/path/of/a/program"
        yield found("agent", detail, remedy, "fail" if others else "warn")
        return
    if not others:
        yield found("agent", f"{program}, used if other nodes are added")
        return
    node_probe = NodeProbe(others, os.environ, agent, time.monotonic())
    while not node_probe.poll(time.monotonic()):
        time.sleep(_LOOK_S)  # probes are only polled
    for node, why in node_probe.unreachable.items():
        detail = f"{program} does not reach {node}: {why}"
        yield found("agent", detail, f"{program} {node} true", "fail")
    if node_probe.reachable:
        yield found("agent", f"{program} reaches {', '.join(node_probe.reachable)}")


def launchers() -> Iterator[DoctorFinding]:
    """Start two ranks by each launcher; report the MPI to which mpi4py is bound."""
    folder = Path(tempfile.mkdtemp(prefix="simenv-doctor-"))
    try:
        environ = dict(paths.worker_environ(os.environ))
        outcomes = selection.probe_all(os.environ, folder, worker_environ=environ)
        working = [outcome for outcome in outcomes if outcome.works]
        for outcome in outcomes:
            path = outcome.path and f"({outcome.path})"
            name = " ".join(filter(None, (outcome.launcher, outcome.version, path)))
            if outcome.works:
                detail = f"{name}: two ranks saw one another in {outcome.seconds:.1f} s"
                yield found("launcher", detail)
            else:
                yield found("launcher", f"{name}: {outcome.detail}", selection.INSTALL_COMMAND)
        works, mpi_detail = (
            (True, working[0].detail) if working else probe.probe_single_rank(environ)
        )
    finally:
        shutil.rmtree(folder)
    if works:
        yield found("mpi", f"mpi4py {mpi4py_version()} is bound to {mpi_detail}")
    else:
        detail = f"{mpi_detail}; workers have one rank each"
        yield found("mpi", detail, selection.INSTALL_COMMAND)


def home() -> Iterator[DoctorFinding]:
    """Check that the journal is on a local file system with free space."""
    root = config.home_root()
    existing = next(path for path in (root, *root.parents) if path.exists())
    kind = paths.kind_of(existing)
    free = shutil.disk_usage(existing).free
    if paths.is_network(kind):
        live = config.places(config.Config()).state
        if live.is_relative_to(root):
            detail = f"{root} is on {kind}, where a journal is not safe; no local disk is set"
            remedy = "export SIMENV_SCRATCH=/a/folder/on/a/local/disk"
            yield found("state", detail, remedy, "fail")
        else:
            yield found("state", f"{root} on {kind}; live journals go to {live.parent}")
    elif free < LEAST_FREE_BYTES:
        yield found("state", f"{root} has {terminal.size(free)} left", f"df -h {existing}")
    else:
        yield found("state", f"{root} on {kind or 'an unknown file system'}")


def kernels() -> Iterator[DoctorFinding]:
    """Check the cache of compiled kernels."""
    folder = config.kernel_cache()
    kept = [path for path in folder.rglob("*/*") if path.is_file()] if folder.exists() else []
    if not kept:
        yield found("kernels", f"none in {folder}: the first start compiles them")
        return
    kept_bytes = sum(path.stat().st_size for path in kept)
    versions = [path for path in folder.iterdir() if path.is_dir()]
    detail = f"{terminal.size(kept_bytes)} for {len(versions)} version(s) in {folder}"
    yield found("kernels", detail, f"rm -r {folder}" if len(versions) > 8 else "")


def sockets() -> Iterator[DoctorFinding]:
    """Check that the folder of sockets is writable."""
    base = config.socket_base()
    if not os.access(base, os.W_OK | os.X_OK):
        yield found("sockets", f"{base} cannot be written", "export TMPDIR=/tmp", "fail")
    else:
        yield found("sockets", f"in {base}")


def connections() -> Iterator[DoctorFinding]:
    """Check for connection files of services that have ended."""
    stale = 0
    for path in sorted(config.home_root().glob("*/connection.json")):
        try:
            file = address.read(path)
        except NoServiceError as error:
            stale += 1
            yield DoctorFinding("warn", "environment", error.message, error.hint)
            continue
        if address.ended(file):
            stale += 1
            option = "" if file.name == "default" else f" --name {file.name}"
            detail = f"{file.name}: process {file.pid} is gone, its connection file is not"
            elsewhere = "" if file.node == os.uname().nodename else " --restore"
            yield found("environment", detail, f"simenv up{option}{elsewhere}")
        else:
            yield found("environment", f"{file.name}: process {file.pid} on {file.node}")
    if not stale:
        yield found("environment", "no connection file without a service")


_FILES = (
    *("server-key.json", "keys.json", "connection.json", "worker.json"),
    *("keys/*.simenv", "worker-keys/*.json"),
)


def modes() -> Iterator[DoctorFinding]:
    """Check that no other user can open the files with keys or addresses. The files are those of
    each environment here, and the one that SIMENV_SERVICE names."""
    root = config.home_root()
    files = [path for name in _FILES for path in sorted(root.glob(f"*/{name}"))]
    named = config.service_file()
    if named is not None and named.exists() and named not in files:
        files.append(named)
    bad = [finding for path in files if (finding := _mode_finding(path)) is not None]
    yield from bad
    if not bad:
        count = terminal.counted(len(files), "file")
        yield found("keys", f"{count} with keys or addresses, readable only by you")


def _mode_finding(path: Path) -> DoctorFinding | None:
    try:
        info = path.stat()
    except FileNotFoundError:  # file of a worker that has just ended
        return None
    mode = stat.S_IMODE(info.st_mode)
    if info.st_uid != os.getuid():
        return found("keys", f"{path} belongs to user {info.st_uid}", f"rm {path}", "fail")
    if mode & 0o077:
        detail = f"{path} can be opened by others ({mode:04o})"
        return found("keys", detail, f"chmod 600 {path}", "fail")
    return None


_SOCKETS = (CLIENT_SOCKET, CLIENT_STREAM, WORKER_STREAM)


def folder_security() -> Iterator[DoctorFinding]:
    """Check that nobody else can write a folder that simenv reads, or a folder above it."""
    results = [path for path in _folders() if path.exists()]
    bad = [finding for path in results if (finding := _folder_finding(path)) is not None]
    yield from dict.fromkeys(bad)  # several folders may share the weakness of one above them
    if not bad:
        count = terminal.counted(len(results), "folder")
        yield found("folders", f"{count}: nobody else can write them or those above")


def kernel_folder_security() -> Iterator[DoctorFinding]:
    """Check that nobody else can write compiled kernels, which are loaded as code."""
    folder = config.kernel_cache()
    result = files.weakness(folder) if folder.exists() else None
    if result is None:
        yield found("kernels", f"nobody else can write {folder}")
        return
    level, why = result
    remedy = f"rm -r {folder}" if level == folder else "export SIMENV_KERNELS=/a/folder/of/yours"
    yield found("kernels", f"{level} {why}: its code would run as you", remedy, "fail")


def socket_security() -> Iterator[DoctorFinding]:
    """Check that only this user can connect to the sockets of environments on this machine."""
    checked = 0
    for path in sorted(config.home_root().glob("*/connection.json")):
        try:
            file = address.read(path)
        except NoServiceError:
            continue  # reported by `connections`
        if file.node != os.uname().nodename or address.ended(file):
            continue
        checked += 1
        why = _open_socket(Path(file.sockets))
        if why:
            remedy = f"simenv down --name {file.name}; simenv up --name {file.name}"
            yield found("sockets", f"of {file.name}: {why}", remedy, "fail")
            return
    yield found("sockets", f"of {terminal.counted(checked, 'environment')}: this user's alone")


def launcher_security() -> Iterator[DoctorFinding]:
    """Check whether other users can run programs through the launcher of workers of several
    ranks."""
    if not mpi4py_version():
        yield found("isolation", "no MPI: workers of one rank listen on no port")
        return
    try:
        nodes = [node.name for node in discover(os.environ).nodes]
    except AllocationError:  # reported by `nodes`
        nodes = [os.uname().nodename]
    prte = installation.find(os.environ)
    library = prte.library if isinstance(prte, installation.Prte) else None
    exposure = network_namespace.exposure(nodes, os.environ, library)
    others = len(network_namespace.other_users())
    present = f"{terminal.counted(others, 'other user')} here now"
    if not exposure:
        yield found("isolation", f"other users cannot reach the launcher of MPI; {present}")
    elif others or len(nodes) > 1:
        detail = f"other users can run programs as you through the launcher of MPI: {exposure}"
        remedy = "simenv up --launcher local, or see docs/reference/security.md"
        yield found("isolation", f"{detail}; {present}", remedy)
    else:
        detail = f"{present}; other users could reach the launcher of MPI: {exposure}"
        yield found("isolation", detail)


def account_isolation() -> Iterator[DoctorFinding]:
    """Check which bounds of isolated workers hold here: files and system calls, namespaces, users
    of accounts, memory; a missing one is a warning if an environment here isolates accounts."""
    from simenv.service.workers import account_users  # loads what the service needs

    is_asked, uids = False, ""
    for file in sorted(config.home_root().glob("*/config.json")):
        with suppress(ConfigError):  # reported by `folder_security`
            settings = config.read(file)
            is_asked = is_asked or settings.isolation == "account"
            uids = uids or settings.isolation_uids
    missing, abi = confinement.unavailable_reason(), confinement.landlock_abi()
    calls = sum(map(len, system_calls.ALLOWED.values())) + len(restricted_calls.RESTRICTED)
    detail = f"isolated workers can be confined: Landlock {abi}, {calls} system calls allowed"
    if missing:
        detail = f"isolated workers cannot be confined: {missing}"
    elif abi < confinement.SCOPED_ABI:
        detail += "; signals are forbidden since Linux 6.12"
    yield found("accounts", detail, _ISOLATION_REMEDY if missing and is_asked else "")
    shared = private_namespaces.unavailable_reason()
    detail = "isolated workers have namespaces of processes and mounts"
    if shared:
        detail = f"isolated workers see the processes of the machine: {shared}"
    yield found("accounts", detail, _NAMESPACES if shared and is_asked else "")
    try:
        missing = account_users.unavailable_reason(account_users.numbers_of(uids))
    except ConfigError as error:
        missing = error.message
    detail = "each account can have a user id of its own, for workers of one rank on this node"
    if missing:
        detail = f"isolated accounts share one user id, no bound against logged-in users: {missing}"
    yield found("accounts", detail, _ACCOUNT_USERS if missing and is_asked else "")
    unbounded = cgroup.unavailable_reason()
    detail = "memory of isolated workers can be bounded by control groups"
    if unbounded:
        detail = f"memory of isolated workers is watched, not bounded by the kernel: {unbounded}"
    yield found("accounts", detail, _DELEGATION if unbounded and is_asked else "")


def _folders() -> Iterator[Path]:
    root = config.home_root()
    yield root
    for file in sorted(root.glob("*/config.json")):
        yield file.parent
        try:
            where = config.places(config.read(file))
        except ConfigError:
            continue
        yield from (where.state, where.logs, where.results, where.home / "results")
        yield where.home / "keys"


def _folder_finding(folder: Path) -> DoctorFinding | None:
    result = files.weakness(folder)
    if result is not None:
        level, why = result
        remedy = f"chmod 700 {level}" if "written" in why else "export SIMENV_HOME=$HOME/.simenv"
        return found("folders", f"{level} {why}", remedy, "fail")
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077 and folder != config.home_root():
        detail = f"{folder} can be read by others (mode {mode:04o})"
        return found("folders", detail, f"chmod 700 {folder}")
    return None


def _open_socket(folder: Path) -> str:
    """Return why other users could connect, or listen in the service's place; "" if they cannot."""
    result = files.weakness(folder)
    if result is not None:
        return f"{result[0]} {result[1]}"
    if stat.S_IMODE(folder.stat().st_mode) & 0o077:
        return f"{folder} can be entered by others"
    for name in _SOCKETS:
        try:
            info = (folder / name).lstat()
        except OSError as error:
            return f"{folder / name}: {error.strerror}"
        if info.st_uid != os.geteuid():
            return f"{folder / name} belongs to user {info.st_uid}"
    return ""
