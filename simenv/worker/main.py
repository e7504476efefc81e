"""Life of a worker: load kernels, join the service, run chunks until stopped.

Isolated, it first gives up what its tasks do not need (`simenv.sandbox.confinement`): files of
the environment and of users before it loads anything, sockets before its first task. It keeps the
connections that it has. Where the kernel cannot do that, a worker that runs code of users ends.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from simenv import files, process
from simenv.errors import ConfigError, SimenvError
from simenv.model.calls import FUNCTIONS
from simenv.sandbox import confinement, private_namespaces
from simenv.sandbox.die_with_parent import bind_to_parent
from simenv.sandbox.limits import forbid_core_dumps, set_limit
from simenv.sandbox.process_tree import adopt_orphans
from simenv.wire import keyfiles
from simenv.wire.messages.client import EXIT_MPI
from simenv.worker import mpi_process, ranks
from simenv.worker.functions import FunctionRules
from simenv.worker.hardware import HardwareSession
from simenv.worker.result_files import ResultFileWriter, RunCheckpoints, unavailable_reason
from simenv.worker.runner import Runner
from simenv.worker.session import Session
from simulators import catalog, registry
from simulators.compiler import warmup
from simulators.engine import Engine, EngineContext

# A rank that is silent for this part of the lease is lost: 5 s of 15.
MAX_THREADS = 1_024  # of all processes of an account's own user on this node
SILENCE_LIMITS_PER_LEASE = 3


def main() -> int:
    arguments = _arguments()
    if arguments.log is not None:
        rank = mpi_process.rank_from_environ(os.environ) if arguments.ranks > 1 else 0
        write_to(log_of(arguments.log, rank))
    # A worker that holds a machine first abandons its job; see `process.on_exit`.
    parent = bind_to_parent(
        arguments.parent, signal.SIGTERM if arguments.provider else signal.SIGKILL
    )
    try:
        service = keyfiles.read_bootstrap(arguments.service, arguments.name, arguments.start)
        if arguments.ranks > 1:
            return _run_rank(arguments, service, parent)
        functions = FunctionRules(import_from=arguments.import_from)
        if arguments.isolated:
            _compile(arguments)  # while the folder that all share can be written
            rules = _file_rules(arguments, service)
            functions = _function_rules(arguments, rules)
            _confine(arguments, partial(_restrict_files, arguments, service, rules))
        writer = _result_writer(arguments, service)
        runner = Runner(writer, None, _checkpoints(arguments), functions=functions)
        hardware = None
        if arguments.provider:
            hardware = HardwareSession.of(arguments.provider, arguments.import_from, arguments.name)
            runner.hold(hardware.engine)
            process.on_exit(hardware.engine.machine.abandon)
        if arguments.command:
            runner.hold(_external(arguments))
        session = Session(
            service, arguments.name, arguments.start, runner, hardware=hardware,
            pid=private_namespaces.pid_outside(),
        )  # fmt: skip
        if arguments.isolated:
            is_remote = service.node != os.uname().nodename
            last = partial(_switch_and_filter, arguments, allow_tcp=is_remote)
            session.before_tasks(partial(_confine, arguments, last))
        _load(arguments, runner)
        return _serve(arguments, session, parent)
    except mpi_process.NoMpi as error:
        process.log_line(str(error))
        return EXIT_MPI
    except SimenvError as error:
        process.log_line(f"cannot begin: {error}")
        return error.exit_code


def _run_rank(arguments: argparse.Namespace, service: keyfiles.WorkerBootstrap, parent: int) -> int:
    begin = time.monotonic()
    if arguments.gpus:  # before MPI, which may begin CUDA
        _take_gpu(arguments.gpus.split(","), mpi_process.rank_from_environ(os.environ))
    comm = mpi_process.begin(arguments.ranks)
    process.log_line(f"MPI ready in {time.monotonic() - begin:.2f} s")
    result_writer = None if comm.rank else _result_writer(arguments, service)
    runner = Runner(result_writer, comm, _checkpoints(arguments))
    _load(arguments, runner)
    result = ranks.connect(comm, service)
    if arguments.isolated:
        rules = _file_rules(arguments, service)
        _confine(arguments, partial(_restrict_files, arguments, service, rules))
    other_ranks = (0,) if comm.rank else tuple(range(1, comm.size))
    silence_s = arguments.lease_s / SILENCE_LIMITS_PER_LEASE
    monitor = ranks.RankMonitor(result.watch, other_ranks, silence_s)
    monitor.start()
    if comm.rank:
        process.freeze_gc()
        ranks.Follower(result, runner).follow()
        process.exit_process(0, "on request")
    leader = ranks.Leader(result, monitor)
    runner.on_engine_error = leader.failed
    return _serve(
        arguments, Session(service, arguments.name, arguments.start, runner, leader), parent
    )


def _take_gpu(gpus: list[str], rank: int) -> None:
    """Make this rank's GPU visible to it alone, of those that the service granted all ranks."""
    from simenv.config.paths import gpu_environ

    os.environ.update(gpu_environ(gpus[rank]))
    process.log_line(f"rank {rank} has GPU {gpus[rank]}")


def _external(arguments: argparse.Namespace) -> Engine:
    from simenv.worker.external import ExternalProgram  # its engine loads Qiskit

    confinement.forbid_tracing()
    adopt_orphans()
    scratch = arguments.service.parent / "external" / arguments.name
    if arguments.isolated:
        scratch = Path(tempfile.gettempdir()) / "external"
    program = ExternalProgram(arguments.command, scratch)
    engine = registry.create("external", EngineContext(program=program))
    engine.warm_up()
    return engine


def _confine(arguments: argparse.Namespace, restrict: Callable[[], None]) -> None:
    """Call `restrict`. Raises ConfigError if it fails and this worker runs code of users."""
    try:
        restrict()
    except OSError as error:
        reason = confinement.unavailable_reason() or error.strerror
        text = f"it is not confined on {os.uname().nodename}: {reason}"
        if arguments.engine == FUNCTIONS or arguments.command:
            raise ConfigError(text, hint="a kernel with Landlock, or isolation = 'none'") from error
        process.log_line(text)


def _switch_and_filter(arguments: argparse.Namespace, *, allow_tcp: bool) -> None:
    """Become the user of the account, whose folder the service has made this one, and give up all
    system calls but those of tasks."""
    if arguments.own_user:
        user = arguments.results.stat().st_uid
        if user == os.geteuid():
            raise OSError(0, "its account has no user of its own")
        private_namespaces.switch_user(user)
        set_limit(resource.RLIMIT_NPROC, MAX_THREADS)
    confinement.filter_calls(allow_tcp=allow_tcp)


def _file_rules(
    arguments: argparse.Namespace, service: keyfiles.WorkerBootstrap
) -> confinement.FileRules:
    """Return the files that this process may use: those of the system and of packages, kernels and
    its own folder. Ranks need MPI's files and shared memory too. Raises ConfigError if those would
    show the environment's own."""
    packages = Path(process.__file__).parents[1]
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    program = shutil.which(shlex.split(arguments.command)[0]) if arguments.command else None
    read = (
        *(Path(sys.prefix), Path(sys.base_prefix), arguments.kernels),
        *(packages / name for name in ("simenv", "simulators", "launcher", "noise_models")),
        *(Path(path) for path in (*libraries, program) if path),
    )
    own, state = arguments.service.parent.resolve(), arguments.results.resolve().parents[2]
    for folder in (*map(Path, confinement.SYSTEM), *read):
        if own.is_relative_to(folder.resolve()) or state.is_relative_to(folder.resolve()):
            text = f"the environment is in {own}, below {folder}, which all tasks may read"
            raise ConfigError(text, hint="set SIMENV_HOME, and state_dir, to another folder")
    write: tuple[Path, ...] = (arguments.results,)
    if arguments.ranks > 1:
        write += (Path("/dev/shm"), Path("/tmp"), Path(tempfile.gettempdir()))
        write += (Path(service.sockets) / "launcher",)
    listed = tuple(Path(folder) for folder in (*sys.path, str(packages)) if folder)
    return confinement.FileRules(read, listed, write)


def _function_rules(arguments: argparse.Namespace, rules: confinement.FileRules) -> FunctionRules:
    """Return the files that functions may use: as this process, but of its folder one part alone,
    where it writes nothing itself."""
    write = (arguments.results / "tmp",)
    return FunctionRules(confinement.FileRules(rules.read, rules.listed, write).with_system)


def _restrict_files(
    arguments: argparse.Namespace, service: keyfiles.WorkerBootstrap, rules: confinement.FileRules
) -> None:
    """Allow this thread only these files and those of the system, and no TCP but to the service.
    Ranks need the network too."""
    forbid_core_dumps()
    if arguments.ranks > 1:
        confinement.restrict_files(rules.with_system, None, scoped=False)
        return
    if len(os.listdir("/proc/self/task")) > 1:  # the others would stay as they are
        raise OSError(0, "it has several threads already")
    if arguments.own_user:
        files.let_others_read(arguments.kernels)
        private_namespaces.reveal((*rules.read, *rules.write, Path(service.sockets)))
    port = service.address.rpartition(":")[2]
    ports = [int(port)] if port else []
    confinement.restrict_files(rules.with_system, ports, may_switch_user=arguments.own_user)


def _load(arguments: argparse.Namespace, runner: Runner) -> None:
    """Load the kernels and the engine that a first task needs."""
    begin = time.monotonic()
    process.import_also_from(arguments.import_from)
    engine = _compile(arguments)
    if runner.calls.engine(engine) is None:
        runner.engine(engine)
    took_s, age_s = time.monotonic() - begin, process.age_s()
    process.log_line(f"kernels ready in {took_s:.2f} s, {age_s:.2f} s after the start")


def _compile(arguments: argparse.Namespace) -> str:
    """Load the kernels that a first task needs, compiled if necessary; return the engine's name."""
    engine = catalog.DEFAULT_ENGINE if arguments.engine == "any" else arguments.engine
    kernels = files.kernel_folder(arguments.kernels)
    warmup.compile_group(kernels, engine, ranks=arguments.ranks > 1)
    return str(engine)


def _load_later(arguments: argparse.Namespace) -> None:
    """Load the remaining kernels, which wide tasks need and a first small task does not."""
    engine = catalog.DEFAULT_ENGINE if arguments.engine == "any" else arguments.engine
    if warmup.load_remaining(arguments.kernels, engine):
        registry.create(engine).warm_up()
    gc.freeze()


def _result_writer(
    arguments: argparse.Namespace, service: keyfiles.WorkerBootstrap
) -> ResultFileWriter:
    unavailable = unavailable_reason(arguments.results, service.token)
    if unavailable:
        process.log_line(f"{arguments.results}: {unavailable}")
    return ResultFileWriter(
        arguments.results, arguments.sync, f"{arguments.name}.{arguments.start}", unavailable
    )


def _checkpoints(arguments: argparse.Namespace) -> RunCheckpoints | None:
    every_s = arguments.checkpoint_s
    return RunCheckpoints.below(arguments.results, every_s) if every_s else None


def _serve(arguments: argparse.Namespace, session: Session, parent: int) -> int:
    session.join(arguments.lease_s, parent)
    process.freeze_gc()
    if arguments.ranks == 1:  # workers of several ranks have loaded all kernels
        session.when_idle(partial(_load_later, arguments))
    while session.work():
        pass
    process.exit_process(0, "on request")


def log_of(path: Path, rank: int) -> Path:
    """Path of the log of one rank: NAME.log, NAME.r1.log, NAME.r2.log ..."""
    return path.with_name(f"{path.stem}.r{rank}{path.suffix}") if rank else path


def write_to(path: Path) -> None:
    """Append the output of this process, and of processes that it starts, to a file of mode
    0600."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    log = os.open(path, flags, 0o600)
    for standard in (1, 2):
        os.dup2(log, standard)
    os.close(log)


def _absolute(text: str) -> Path:
    return Path(text).absolute()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="simenv.worker", allow_abbrev=False)
    parser.add_argument("--service", type=_absolute, required=True, help="worker.json")
    parser.add_argument("--name", required=True)
    parser.add_argument("--start", type=int, required=True)
    parser.add_argument("--engine", default="any")
    parser.add_argument("--provider", default="", help="MODULE:FACTORY of the machine it holds")
    parser.add_argument("--import-from", default="", help="folders of that module")
    parser.add_argument("--command", default="", help="of an external simulator")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--gpus", default="", help="of each of several ranks, joined by commas")
    parser.add_argument("--lease-s", type=float, default=15.0)
    parser.add_argument("--kernels", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--checkpoint-s", type=float, default=0.0, help="0: never")
    parser.add_argument("--sync", action="store_true")
    parser.add_argument("--isolated", action="store_true", help="--results is its own folder")
    parser.add_argument("--own-user", action="store_true", help="tasks run as its folder's owner")
    parser.add_argument("--log", type=Path, help="the inherited ones where none is named")
    parser.add_argument("--parent", type=int, required=True, help="0: the parent process")
    return parser.parse_args()
