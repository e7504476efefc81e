"""`simenv qpm`: run the conformance kit against simenv's QPM or another plugin, and compare two
QPMs.

Invariant: an environment or plugin process that a check starts has ended when the check ends; a
check never touches an environment that is up. The environment of `simenv qpm check defw` is
private, and killed and restarted by the kit; no process, socket or folder of it is left after
`close`.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import simenv
from simenv import config
from simenv.cli import app, terminal
from simenv.cli.tasks.circuit_input import read_circuit
from simenv.client import launch
from simenv.client.connection import address
from simenv.config import EnvironmentPaths
from simenv.errors import NotFoundError, OptionError, SimenvError
from simenv.model import PoolSpec
from simenv.qpm_check import RPC_TIMEOUT_S

if TYPE_CHECKING:
    from simenv.client.client import Client
    from simenv.qpm_check.check import Verdict
    from simenv.qpm_check.comparison import CircuitSource
    from simenv.qpm_check.plugin import PluginTarget
    from simenv.qpm_check.target import CheckTarget


class Restartable:
    """`target.Outage` of a service that is killed, and started again from its journal."""

    def __init__(self) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="simenv-local-"))
        self._paths = EnvironmentPaths(self._home, self._home)
        settings = {"name": "local", "durability": "process", "pools": (PoolSpec(min=1, max=1),)}
        self._config = config.convert(settings, source="simenv qpm check")
        self._lifeline = -1
        self._start()

    @property
    def service(self) -> Path:
        """The connection file of the service."""
        return self._paths.connection

    def begin(self) -> None:
        """Kill the service with SIGKILL."""
        self._service.process.kill()
        self._service.process.wait()
        self._close_lifeline()

    def end(self) -> None:
        """Start the service again; return when it is ready."""
        launch.clear(self._sockets, self.service)
        self._start()

    def close(self) -> None:
        """End the service and remove all its files."""
        try:
            self._close_lifeline()
            launch.end(self._service.process)
            launch.clear(self._sockets, self.service)
        finally:
            shutil.rmtree(self._home, ignore_errors=True)

    def _close_lifeline(self) -> None:
        """Close the lifeline of the service, once. The descriptor is forgotten first: after a
        failed restart, another file may have its number."""
        lifeline, self._lifeline = self._lifeline, -1
        if lifeline >= 0:
            os.close(lifeline)

    def _start(self) -> None:
        self._service = launch.start(
            self._config, self._paths, private=True, temporary=[self._home]
        )
        self._lifeline = self._service.lifeline
        self._sockets = Path(address.read(self.service).sockets)


FAILED = 1
SILENCE_S = 4.0  # of a check, before a line says how far it is
MACHINE = "qpu"
LOCALLY = "tcp://127.0.0.1:0"  # address for the connection of another owner
EMULATED = "superconducting-lattice"
MADE_UP = "simenv.cli.admin.qpm:machine"
USED_WITH = {
    "provider": ("hardware",), "device": ("emulated",), "token_file": ("a folder",),
    "rpc_timeout": ("defw", "a folder"), "restart": ("a folder",),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Options of `simenv qpm check`."""

    only: Annotated[
        list[str] | None, typer.Option(help="Only rows of this name; * matches any text.")
    ] = None
    revision: Annotated[
        list[int] | None, typer.Option(help="Revision of the contract: 1 or 2; default: both.")
    ] = None
    every: Annotated[bool, typer.Option("--all", help="Show also the rows that passed.")] = False
    junit: Annotated[
        Path | None, typer.Option(help="Write the verdicts to this file as JUnit XML.")
    ] = None
    long: Annotated[
        Path | None, typer.Option(help="OpenQASM 2 file of a circuit that runs for about a second.")
    ] = None
    qubits: Annotated[
        int, typer.Option(help="Maximum width of the circuits of the kit.", min=3)
    ] = 22
    provider: Annotated[
        str, typer.Option(help="With hardware: MODULE:FACTORY of a Qiskit BackendV2.")
    ] = MADE_UP
    device: Annotated[str, typer.Option(help="With emulated: name of the emulated device.")] = (
        EMULATED
    )
    token_file: Annotated[
        Path | None, typer.Option(help="With a folder: file with the token for its calls.")
    ] = None
    rpc_timeout: Annotated[
        float,
        typer.Option(
            help="Timeout in seconds of a call from the host to a client (DEFw: 300).", min=5.0
        ),
    ] = RPC_TIMEOUT_S
    restart: Annotated[
        tuple[str, str] | None,
        typer.Option(
            help="With a folder: commands that kill and start the system behind the plugin.",
            metavar="KILL START",
        ),
    ] = None
    show: Annotated[bool, typer.Option("--list", help="List the rows without running them.")] = (
        False
    )


@app.with_options(CheckOptions)
def check(
    context: typer.Context,
    asked: CheckOptions,
    target: Annotated[
        str, typer.Argument(help="inprocess, defw, hardware, emulated, or a plugin's folder.")
    ] = "",
) -> None:
    """Check a QPM against its contract, row by row.

    `inprocess`: client.qpm of a private environment; `defw`: our plugin behind a stand-in for DEFw;
    `hardware`: as inprocess, over a pool that holds a backend; `emulated`: over a pool with an
    emulated device. PATH: a plugin as DEFw loads it,
    PATH/services/svc_*. The exit code is 1 if a row failed, 4 if there is nothing to load.
    """
    from simenv.qpm_check import checks, runner, runner as report

    rows, as_json = checks.rows(), app.settings_of(context).as_json
    if asked.show:
        _show(rows, as_json)
        return
    if not target:
        hint = "inprocess, defw, hardware, emulated or a folder"
        raise OptionError("simenv qpm check needs a target", hint=hint)
    revisions = tuple(asked.revision or (1, 2))
    if not set(revisions) <= {1, 2}:
        raise OptionError(f"revision {revisions}", hint="the contract has 1 and 2")
    long = "" if asked.long is None else _text(asked.long)
    chosen = runner.Options(tuple(asked.only or ()), revisions, long, asked.qubits)

    _refuse_unused(context, target)
    with _open_target(target, asked) as result:
        done = runner.check(result, rows, chosen, _announcer(as_json))
    if asked.junit is not None:
        asked.junit.write_text(report.junit(done), encoding="utf-8")
    if as_json:
        terminal.json_line(report.plain(done))
    else:
        report.table(done, everything=asked.every, stream=sys.stdout)
    if not done.ok:
        raise typer.Exit(FAILED)


def _announcer(as_json: bool) -> Callable[[Verdict], None]:
    """A line on a terminal for each row that failed, and for others after some silence."""
    judged, noted_s = 0, time.monotonic()

    def announce(verdict: Verdict) -> None:
        nonlocal judged, noted_s
        judged += 1
        failed, now_s = str(verdict.state) == "failed", time.monotonic()
        if as_json or not sys.stderr.isatty() or not (failed or now_s - noted_s > SILENCE_S):
            return
        noted_s = now_s
        text = "failed  " if failed else f"{judged} rows judged, the last: "
        terminal.note(f"{text}{verdict.id} ({verdict.revision})")

    return announce


def _refuse_unused(context: typer.Context, target: str) -> None:
    """Raise OptionError for an option that has no effect for this target."""
    kind = target if target in ("inprocess", "hardware", "emulated", "defw") else "a folder"
    for name in app.given(context):
        kinds = USED_WITH.get(name, (kind,))
        if kind not in kinds:
            hint = f"use it with {' or '.join(kinds)}"
            raise OptionError(f"--{name.replace('_', '-')} has no effect with {target}", hint=hint)


@contextmanager
def _open_target(target: str, asked: CheckOptions) -> Iterator[CheckTarget]:
    from simenv.qpm_check.circuits import Commands
    from simenv.qpm_check.target import Objects

    if target == "inprocess":
        with _private(listen=LOCALLY) as client:
            yield Objects(target, partial(_qpm, client), partial(_other_owner, client))
    elif target in ("hardware", "emulated"):
        pool = {"name": MACHINE, "device": asked.device}
        if target == "hardware":
            pool = {"name": MACHINE, "engine": "hardware", "provider": asked.provider}
        with _private(pools=[pool], listen=LOCALLY) as client:
            open_qpm, open_other_owner = partial(_qpm, client), partial(_other_owner, client)
            yield Objects(
                target, partial(open_qpm, pool=MACHINE), partial(open_other_owner, MACHINE)
            )
    elif target == "defw":
        plugin_target = _plugin_target()
        from simenv.frontends.qfw import PLUGIN

        with closing(Restartable()) as environment:
            yield plugin_target(
                target, PLUGIN,
                {"SIMENV_SERVICE": str(environment.service), "SIMENV_QPM_ROLE": "admin"},
                rpc_timeout_s=asked.rpc_timeout, outage=environment,
            )  # fmt: skip
    else:
        plugin_target = _plugin_target()
        from simenv.client.qpm.identity import read_token

        token = "" if asked.token_file is None else read_token(asked.token_file)
        outage = None if asked.restart is None else Commands(*asked.restart)
        yield plugin_target(
            target, Path(target), token=token, rpc_timeout_s=asked.rpc_timeout, outage=outage
        )


def _plugin_target() -> type[PluginTarget]:
    """Return the target of a plugin, whose modules need PyYAML. Raises OptionError without it."""
    if importlib.util.find_spec("yaml") is None:
        hint = "pip install 'simenv[qpm]'"
        raise OptionError("calls to a plugin need PyYAML, which is not installed", hint=hint)
    from simenv.qpm_check.plugin import PluginTarget

    return PluginTarget


@contextmanager
def _private(**config: Any) -> Iterator[Client]:
    # In this thread, which does not end: Qiskit crashes after the end of the thread that loaded it.
    for name in ("qiskit.qasm2", "qiskit.qpy"):
        importlib.import_module(name)
    with simenv.local(workers=1, **config) as client:
        yield client


@contextmanager
def _qpm(
    client: Client, revision: int, pool: str | None = None, reservations: str = "required"
) -> Iterator[Callable[[], Any]]:
    """Yield a factory of QPMs over the environment, or over one pool of it. In revision 1 the
    factory returns a new connection at each call; in revision 2, one object."""
    with simenv.connect(service=client.service) as own:
        qpm = own.qpm_with(pool=pool, reservations=reservations)
        yield qpm.connection if revision == 1 else lambda: qpm


@contextmanager
def _other_owner(client: Client, pool: str | None = None) -> Iterator[Any]:
    """Yield a QPM of another owner, whose key is revoked at the end."""
    from simenv.client.administration.keys import issue_key

    name = f"stranger-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory(prefix="qpm-check-") as folder:
        issue_key(client.keys, name, "client", Path(folder) / name)
        try:
            with simenv.connect(service=Path(folder) / name) as own:
                yield own.qpm_with(pool=pool, reservations="required")
        finally:
            client.keys.revoke(name)


def _show(rows: Any, as_json: bool) -> None:
    if not as_json:
        terminal.line("| row | revision | tested behaviour |")
        terminal.line("|---|---|---|")
    for row in rows:
        revisions = ", ".join(map(str, row.revisions))
        if as_json:
            needs = sorted(map(str, row.needs))
            names = {"id": row.id, "revisions": row.revisions, "title": row.title}
            terminal.json_line({**names, "needs": needs})
        else:
            terminal.line(f"| `{row.id}` | {revisions} | {row.title} |")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise OptionError(f"{path}: {error.strerror}", hint="--long FILE, OpenQASM 2") from error


def machine() -> Any:
    """Return a Qiskit BackendV2 of seven qubits in a line, with errors: the default provider of
    `simenv qpm check hardware`."""
    from qiskit.providers.fake_provider import GenericBackendV2

    line = [[a, b] for a in range(7) for b in (a - 1, a + 1) if 0 <= b < 7]
    return GenericBackendV2(7, coupling_map=line, seed=7)


NOT_ALIKE = 1
_NO_CLIFFORD = "OPENQASM 2.0;\nqreg q[1];\nu3(0.1,0,0) q[0];\n"


def diff(
    context: typer.Context,
    pool1: Annotated[str, typer.Argument(help="A pool of the environment that is up.")],
    pool2: Annotated[str, typer.Argument(help="Another pool, such as that of a device.")],
    files: Annotated[
        list[Path], typer.Argument(help="OpenQASM files, pulse sequences, or folders of *.qasm.")
    ],
    shots: Annotated[int, typer.Option(min=1, help="Shots of each circuit on each pool.")] = 1024,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the circuits; devices ignore it.")] = 7,
    bound: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0,
            help="Maximum total variation distance of the counts, beyond statistical noise.",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(callback=app.seconds, help="Timeout of a circuit in seconds.")
    ] = 600.0,
    every: Annotated[bool, typer.Option("--all", help="Show also what is equal.")] = False,
) -> None:  # fmt: skip
    """Compare two pools by what an application observes through a QPM.

    Runs the same circuits and invalid requests through a QPM on both pools, and compares calls,
    errors, states, times, devices and counts. The exit code is 1 if their behaviour differs, 4 if
    there is no such pool or file.
    """
    from simenv.qpm_check import comparison
    from simenv.qpm_check.target import Objects

    common = app.settings_of(context)
    sources = _sources(files)
    observed = []
    with common.connect() as client:

        def provenance(task: str) -> tuple[str, str, str]:
            result = client.task(task).result(timeout)
            return result.engine, result.engine_reason, result.remark

        pools = client.pools()
        for pool in (pool1, pool2):
            if pool not in pools:
                raise NotFoundError(f"there is no pool {pool!r}", hint=f"pools: {', '.join(pools)}")
        for pool in (pool1, pool2):

            def announce(name: str, pool: str = pool) -> None:
                if sys.stderr.isatty() and not common.as_json:
                    terminal.note(f"{pool}: {terminal.clean(name)}")

            target = Objects(pool, partial(_qpm, client, pool=pool, reservations="optional"))
            facts = comparison.device_facts(
                client.devices()[pool], _returns_statevectors(client, pool)
            )
            observed.append(
                comparison.observe(
                    target, sources, shots, seed, timeout, provenance, facts, announce
                )
            )
    result = comparison.compare(observed[0], observed[1], bound)
    if common.as_json:
        terminal.json_line(result.plain())
    else:
        comparison.table(result, everything=every, stream=sys.stdout)
    if not result.alike:
        raise typer.Exit(NOT_ALIKE)


def _sources(files: Sequence[Path]) -> list[CircuitSource]:
    """Read circuits and pulse sequences, named by their files. Raises NotFoundError, and
    ProgramError for one that any pool would refuse."""
    from simenv.client.circuits import text_checks
    from simenv.client.circuits.load import is_pulses
    from simenv.model.paradigms import PULSER
    from simenv.model.pulses import check_text
    from simenv.qpm_check.comparison import CircuitSource

    paths = [path for file in files for path in (sorted(file.glob("*.qasm")) or [file])]
    names = [path.name for path in paths]
    sources = []
    for path in paths:
        if not path.is_file():
            raise NotFoundError(f"{path}: no such file", hint="OpenQASM files, or their folder")
        name = path.name if names.count(path.name) == 1 else str(path)
        text = path.read_text(encoding="utf-8", errors="replace")
        if is_pulses(text):
            check_text(name, text)
            sources.append(CircuitSource(name, text, PULSER))
            continue
        read_circuit(str(path))
        version = text_checks.inspect(text, str(path)).version
        sources.append(CircuitSource(name, text, f"openqasm{version}"))
    return sources


def _returns_statevectors(client: Client, pool: str) -> bool:
    try:
        explained = client.explain(_NO_CLIFFORD, pool=pool, shots=None, outputs="statevector")
    except SimenvError:
        return False
    return bool(explained.engine)


qpm = typer.Typer(help="Check a QPM plugin; compare two pools.")
qpm.command()(check)
qpm.command()(diff)
