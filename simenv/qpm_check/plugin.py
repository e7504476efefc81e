"""A target that is a plugin folder, loaded by the DEFw double in one process for each QPM."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from simenv.errors import SimenvError
from simenv.qpm.methods import REVISION2
from simenv.qpm_check import RPC_TIMEOUT_S, target
from simenv.qpm_check.fake_defw import fakes, host, loader

START_S = 60.0
READY_S = 40.0  # patience of a host
ANSWER_S = 20.0  # limit of the first call: a later answer counts as none
REGISTER_S = 15.0
END_S = 10.0
ENDING_S = 2.0
MOST_CHARS = 1_500
LOOK_S = 0.01
# Variables that Python needs to find installed packages.
_PYTHONS = ("PATH", "HOME", "TMPDIR", "LANG", "LC_", "PYTHON", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
HOST = (sys.executable, "-X", "faulthandler", "-P", "-m", "simenv.qpm_check.fake_defw")
# Program of the host, to which `sys.executable` leads: it records that it was started.
_PROGRAM = '#!/bin/sh\necho "$@" >> "{record}"\nexit 1\n'


class PluginTarget:
    """Plugin folder as a target. `environ`: additional variables of its process. `token`: token of
    calls of revision 2. `rpc_timeout_s`: limit of a call of the host to a client. `outage`: stops
    the plugin's backend, if that is possible."""

    has_package = True
    has_transport = True

    def __init__(
        self,
        name: str,
        folder: Path,
        environ: Mapping[str, str] | None = None,
        token: str = "",
        *,
        rpc_timeout_s: float = RPC_TIMEOUT_S,
        outage: target.Outage | None = None,
    ) -> None:
        self.name = name
        result = loader.candidates(folder)
        if not result:
            message = f"{folder} has no plugin"
            hint = "one is PLUGIN/services/svc_NAME/__init__.py"
            raise target.NothingToCheckError(message, hint=hint)
        if len(result) > 1:
            names = ", ".join(path.name for path in result)
            message = f"{folder} has {len(result)} services: {names}"
            raise target.NothingToCheckError(message, hint="one QPM a plugin folder")
        self.service = result[0]
        self.environ = dict(environ or {})
        self.token = token
        self.outage = outage
        self._rpc_timeout_s = rpc_timeout_s
        self.registers = True  # False once it did not register in time
        self._facts: dict[int, dict[str, Any]] = {}

    def facts(self, revision: int) -> dict[str, Any]:
        """Facts that are collected when the plugin is loaded."""
        if revision not in self._facts:
            with self.process(revision) as control:
                facts = _loaded_facts(control, self.service)
                try:
                    facts["properties"] = control.host("query")["card"]["properties"]
                except Exception as error:  # noqa: BLE001 - why it does not serve this revision
                    facts["query_error"] = f"{target.named(error)}: {error}"
            self._facts[revision] = facts
        return self._facts[revision]

    def serves(self, revision: int) -> str:
        """ "" if the plugin serves the revision, else the reason. Revision 2 is not served if
        `query` answers without properties. A revision in which the plugin raises counts as served:
        checks report the error."""
        facts = self.facts(revision)
        if revision == 1 or facts["import_error"] or facts["query_error"]:
            return ""
        return "" if facts["properties"] else "query has no properties"

    @contextmanager
    def open(self, revision: int) -> Iterator[_Subject]:
        with self.process(revision) as control:
            if _loaded_facts(control, self.service)["import_error"]:
                raise target.CheckFailed("it could not be imported")
            subject = _Subject(self, control, revision)
            try:
                subject.await_ready()
                yield subject
            finally:
                subject.close()

    @contextmanager
    def process(
        self, revision: int, environ: Mapping[str, str] | None = None, *, bare: bool = False
    ) -> Iterator[Any]:
        """Start the plugin's process and yield the connection that keeps it alive. `bare`: without
        variables that the checking user has set."""
        folder = Path(tempfile.mkdtemp(prefix="qpm-check-"))
        path, record = folder / "socket", folder / "started"
        try:
            program = _executable(folder, record)
            ours = {} if bare else self.environ
            with (folder / "log").open("wb") as log:
                process = subprocess.Popen(
                    [
                        *HOST, str(path), str(self.service.resolve()), str(revision), str(program),
                        str(self._rpc_timeout_s),
                    ],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    env={**_environ(folder, revision, bare), **ours, **(environ or {})},
                )  # fmt: skip
            try:
                control = _connected(host.Connection, path, process, folder)
                control.socket_path = str(path)
                control.started = partial(_lines, record)
                control.exit_reason = partial(_exit_report, control, process, folder)
                try:
                    yield control
                finally:
                    control.die()
            finally:
                _end(process)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class _Subject:
    """One QPM behind the DEFw double."""

    def __init__(self, plugin: PluginTarget, control: Any, revision: int) -> None:
        self._plugin = plugin
        self.control = control
        self._revision = revision
        self._links: list[_Link] = []

    def await_ready(self) -> None:
        """Wait as a host does: until it is registered, then until it is ready."""
        if self._revision == 2 and self._plugin.registers:
            deadline = time.monotonic() + REGISTER_S
            while not self.control.host("registered") and time.monotonic() < deadline:
                time.sleep(LOOK_S)
            self._plugin.registers = bool(self.control.host("registered"))
        deadline = time.monotonic() + READY_S
        link = self._linked(host.Connection(self.control.socket_path, ANSWER_S))
        try:
            while not _is_ready(link, self._revision):
                if time.monotonic() > deadline:
                    raise target.CheckFailed(f"not ready within {READY_S:g} s")
                time.sleep(LOOK_S)
        finally:
            link.die()

    def connect(self) -> _Link:
        return self._linked(host.Connection(self.control.socket_path))

    def connect_same_process(self, other: _Link) -> _Link:
        """Connect another client in the same process: separate proxies over one connection."""
        return self._linked(other.connection)

    def _linked(self, connection: Any) -> _Link:
        token = self._plugin.token if self._revision == 2 else ""
        link = _Link(connection, token, bindings=self._revision == 2)
        self._links.append(link)
        if self._revision == 1:
            connection.host("hello", id(link) % 1_000_000)
        return link

    def close(self) -> None:
        for link in self._links:
            link.die()

    def exit_reason(self) -> str:
        return str(self.control.exit_reason())

    def other_owner(self) -> None:
        """None: DEFw's transport does not identify the caller."""
        return None

    def card(self) -> target.Card:
        return msgspec.convert(self.control.host("query")["card"], target.Card)

    def signatures(self) -> dict[str, inspect.Signature]:
        return {
            name: inspect.Signature([_parameter(*fields) for fields in parameters])
            for name, parameters in self.control.host("facts")["signatures"].items()
        }


class _Link:
    """One client, with the contract's methods."""

    def __init__(self, connection: Any, token: str, *, bindings: bool) -> None:
        self.connection = connection
        self._proxy = host.Proxy(connection, bindings=bindings)
        self.methods = _Methods(self._proxy, token)

    def sink(self) -> target.ClientEventSink:
        result: target.ClientEventSink = self.connection.sink()
        return result

    def impure(self) -> dict[str, str]:
        """Methods whose answers were not plain data before they were sent."""
        entries: dict[str, str] = self.connection.impure
        return entries

    def leave(self) -> None:
        """Disconnect in good order: destroy the proxies first."""
        self._proxy.destroy()
        self.die()

    def die(self) -> None:
        self.connection.die()


_BINDING_OF = {method: name for name, methods in REVISION2.items() for method in methods}


class _Methods:
    """Methods by name: each is a call to the host, with the target's token unless one is given."""

    def __init__(self, proxy: Any, token: str) -> None:
        self._proxy = proxy
        self._more = {"token": token} if token else {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return partial(_call, self._proxy, name, self._more)


def _call(proxy: Any, method: str, more: Mapping[str, str], *args: Any, **named_ones: Any) -> Any:
    return proxy.call(_BINDING_OF.get(method, ""), method, args, {**more, **named_ones})


def _is_ready(link: _Link, revision: int) -> bool:
    try:
        answer = link.methods.is_ready()
    except Exception as error:
        if target.named(error) == "DEFwNotReady":
            return False
        raise
    return bool(answer["ready"]) if revision == 2 and isinstance(answer, dict) else bool(answer)


def _environ(folder: Path, revision: int, bare: bool) -> dict[str, str]:
    """Environment that a host's launcher sets, without a backend."""
    gone = ("SIMENV_SERVICE", "QFW_QPM_SERVICE_ID", "QFW_SERVICE_READY_FILE")
    ours = {key: value for key, value in os.environ.items() if key not in gone}
    if bare:
        ours = {key: value for key, value in ours.items() if key.startswith(_PYTHONS)}
    return {
        **ours,
        "DEFW_AGENT_NAME": "qpm-check", "DEFW_AGENT_TYPE": "service", "DEFW_SHELL_TYPE": "daemon",
        "DEFW_PARENT_NAME": "qpm-check-parent", "DEFW_PARENT_ADDR": "127.0.0.1",
        "DEFW_PARENT_HOSTNAME": "localhost", "DEFW_PARENT_PORT": "8090",
        "DEFW_LISTEN_PORT": "8290", "DEFW_TELNET_PORT": "8291", "DEFW_LOG_DIR": str(folder),
        "DEFW_DISABLE_RESMGR" if revision == 1 else "DEFW_DISABLE_DIRSVC": "no",
        "DEFW_EXPECTED_AGENT_COUNT": "1", "DEFW_EXTERNAL_EXPERIMENTS_PATH": "",
        "QFW_STARTUP_TIMEOUT": "40",
    }  # fmt: skip


def _executable(folder: Path, record: Path) -> Path:
    """Make a link called python3 to a program of the host that is no Python."""
    program, link = folder / "defwp", folder / "python3"
    program.write_text(_PROGRAM.format(record=record), encoding="utf-8")
    program.chmod(0o700)
    link.symlink_to(program)
    return link


def _lines(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines() if path.exists() else []


def _loaded_facts(control: Any, service: Path) -> dict[str, Any]:
    """Facts about the plugin from the DEFw double; a plugin that blocks it counts as not loaded."""
    try:
        entries: dict[str, Any] = control.host("facts")
    except Exception as error:  # noqa: BLE001 - checks report the error
        message = f"it has not been loaded within the time: {target.named(error)}: {error}"
        facts = fakes.PluginFacts(str(service), service.name, import_error=message)
        entries = msgspec.to_builtins(facts)
    return entries


def _connected(kind: Any, path: Path, process: subprocess.Popen[bytes], folder: Path) -> Any:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError):
            return kind(str(path), ANSWER_S)
        time.sleep(LOOK_S)
    log_tail = (folder / "log").read_text(errors="replace")[-1_000:]
    message = f"the process of the plugin does not start: {log_tail}"
    raise SimenvError(message, hint="see its log above")


def _exit_report(control: Any, process: subprocess.Popen[bytes], folder: Path) -> str:
    """Exit status and last output of the process; "" while it lives."""
    if control.lost:  # then the process is ending, and may not have ended yet
        with suppress(subprocess.TimeoutExpired):
            process.wait(ENDING_S)
    if process.poll() is None:
        return ""
    log_text = (folder / "log").read_text(errors="replace").strip()
    begin = log_text.find("Fatal Python error")  # of the interpreter's own, what it was doing
    shown = log_text[-MOST_CHARS:] if begin < 0 else log_text[begin : begin + MOST_CHARS]
    return f"the plugin's process ended with code {process.returncode}: {shown or 'no words'}"


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _parameter(name: str, kind: str, has_default: bool, default: Any) -> inspect.Parameter:
    given = default if has_default else inspect.Parameter.empty
    return inspect.Parameter(name, getattr(inspect.Parameter, kind), default=given)
