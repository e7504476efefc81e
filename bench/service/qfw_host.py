"""simenv's service package inside an installed QFw and DEFw."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from bench.harness import Report, benchmark
from bench.harness.environments import simenv
from bench.service.latency import CIRCUIT, NULL_PLUGIN
from testbed.waiting import until

APPS = Path(__file__).with_name("qfw_apps")
START_S = 60.0
APP_S = 240.0
INSIDE = """
import json, sys, sysconfig
import simenv.frontends.qfw as qfw
print(json.dumps({
    "packages": sysconfig.get_path("purelib"), "base": sys.base_prefix,
    "library": sysconfig.get_config_var("LIBDIR"), "services": str(qfw.SERVICES),
    "startup": str(qfw.STARTUP),
}))
"""


@benchmark(qfw=Path, defw=Path, python=sys.executable, runs=(100, 10), only=[""])
def qfw_host(report: Report, options: Namespace) -> None:
    """simenv's service package inside an installed QFw and DEFw.

    Nothing of QFw or DEFw is in this repository: both are named by path (`--qfw`, `--defw`), DEFw
    built. A `defwp` daemon loads the package next to QFw's resource manager (revision 1) or
    directory (revision 2); the applications in `qfw_apps/` run as processes of their own under the
    same DEFw. `--only`: names of drills; `--runs`: of the application that leaves. `--python`: the
    interpreter of the virtual environment that QFw uses; simenv must be installed there (not in
    editable form) and Qiskit with it. By default the one that runs this.
    """
    if options.qfw is None or options.defw is None:
        raise SystemExit("name the host: --qfw FOLDER --defw FOLDER")
    folder = Path(tempfile.mkdtemp(prefix="qfw-host-"))
    host = Host(options.qfw.resolve(), options.defw.resolve(), options.python, folder)
    print(f"simenv in DEFw ({host.defw}), revision {host.revision}; logs in {folder}")
    drills = DRILLS[host.revision]
    with host.up():
        for name in [*filter(None, options.only)] or drills:
            begin = time.monotonic()
            try:
                drills[name](host, report, options.runs)
            except Exception as error:  # noqa: BLE001 - a drill that fails is a missed goal
                report.not_measured("", f"{type(error).__name__}: {error}", name)
            print(f"       {name}: {time.monotonic() - begin:.0f} s")


class Host:
    """DEFw's processes and the environment behind them, in a folder of their own."""

    def __init__(
        self, qfw: Path, defw: Path, python: str, folder: Path, *, private: bool = False
    ) -> None:
        """`private`: the QPM's service starts the environment, which ends with it."""
        self.qfw, self.folder, self.python, self.private = qfw, folder, python, private
        runtime = defw / "build" / "runtime"
        self.defw = runtime if (runtime / "src" / "defwp").exists() else defw
        self.program = self.defw / "src" / "defwp"
        if not self.program.exists():
            raise SystemExit(f"{defw}: no src/defwp there: build DEFw first")
        self.revision = 2 if (self.defw / "python" / "services" / "svc_dirsvc").is_dir() else 1
        self.name = f"revision {self.revision}" + (", private environment" if private else "")
        done = subprocess.run(
            [python, "-c", INSIDE], capture_output=True, text=True, check=False, cwd=folder
        )
        if done.returncode:
            raise SystemExit(f"{python} has no simenv: {done.stderr.splitlines()[-1]}")
        self.inside: dict[str, str] = json.loads(done.stdout)
        own_apis = qfw / "service-apis" if self.revision == 1 else self._stubs()
        self.apis = [own_apis, self.defw / "python" / "service-apis"]
        self.parent, self.parent_port = ("resmgr", "dirsvc")[self.revision - 1], _free_port()
        self.home = folder / "home"
        self.daemons: dict[str, int] = {}  # pids by name
        self._apps = 0

    @contextlib.contextmanager
    def up(self) -> Iterator[None]:
        """Run the environment, the parent and the service until the context ends."""
        if not self.private:
            self.simenv("up", "--workers", "2")
        try:
            self.daemon(self.parent, f"svc_{self.parent}", port=self.parent_port)
            self.daemon("simenv", self._modules("svc_simenv_qpm"))
            yield
        finally:
            for pid in reversed(self.daemons.values()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not self.private:
                self.simenv("down")

    def kill_environment(self) -> None:
        connection = json.loads((self.home / "default" / "connection.json").read_text())
        os.kill(int(connection["pid"]), signal.SIGKILL)

    def simenv(self, *args: str) -> str:
        program = (self.python, "-c", "from simenv.cli.entry import main; main()")
        environ = {**os.environ, "SIMENV_HOME": str(self.home)}
        return simenv(args, environ, cwd=self.folder, program=program)

    def daemon(self, name: str, modules: str, port: int = 0) -> None:
        """Start a `defwp -d`; return when it has written its pid."""
        logs = self.folder / name
        logs.mkdir()
        kind = "service" if name == "simenv" else self.parent
        environ = self._environ(name, kind, "daemon", modules, logs, port)
        subprocess.run([str(self.program), "-d"], env=environ, check=True, cwd=self.folder)
        pid = logs / "pid"
        until(lambda: pid.exists() and pid.read_text(), START_S, message=f"{name}: see {logs}")
        self.daemons[name] = int(pid.read_text())

    def start(self, script: Path, *args: str) -> App:
        """Start an application under DEFw, as QFw runs it: `python3` is a link to `defwp`."""
        self._apps += 1
        name = f"app{self._apps}"
        logs = self.folder / name
        logs.mkdir()
        link = logs / "python3"
        link.symlink_to(self.program)
        environ = self._environ(name, "agent", "cmdline", self._modules(), logs, 0)
        out = (logs / "out").open("w")
        line = [str(link), str(script), *args]
        child = subprocess.Popen(
            line, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=logs
        )
        return App(child, logs)

    def start_app(self, name: str, *args: str) -> App:
        return self.start(APPS / "application.py", name, *args)

    def run(self, script: str, *args: str) -> list[dict[str, Any]]:
        return self.start_app(script, *args).end()

    def _modules(self, *first: str) -> str:
        names = ("execution", "admission_control", "admission_policy_config", "scheduler_control")
        more = [f"api_qpm_{name}" for name in (*names, "telemetry", "control")]
        return ",".join((*first, *(["api_qpm"] if self.revision == 1 else more), "api_events"))

    def _environ(
        self, name: str, kind: str, shell: str, modules: str, logs: Path, port: int
    ) -> dict[str, str]:
        python = self.defw / "python"
        paths = [
            self.inside["startup"], *self.apis, python / "services", python / "infra",
            self.defw / "src", self.qfw / "backends", self.inside["packages"],
            NULL_PLUGIN / "services",
        ]  # fmt: skip
        libraries = f"{self.defw / 'src'}:{self.inside['library']}"
        parent = "RESMGR" if self.revision == 1 else "DIRSVC"
        return {
            **{key: value for key, value in os.environ.items() if not key.startswith("DEFW_")},
            "PYTHONHOME": self.inside["base"],
            "PYTHONPATH": ":".join(str(path) for path in paths),
            "LD_LIBRARY_PATH": f"{libraries}:{os.environ.get('LD_LIBRARY_PATH', '')}",
            "DEFW_PATH": str(self.defw),
            "DEFW_CONFIG_PATH": str(python / "config" / "defw_generic.yaml"),
            "DEFW_AGENT_NAME": name,
            "DEFW_AGENT_TYPE": kind,
            "DEFW_SHELL_TYPE": shell,
            "DEFW_LISTEN_PORT": str(port or _free_port()),
            "DEFW_TELNET_PORT": str(_free_port()),
            "DEFW_PARENT_ADDR": "127.0.0.1",
            "DEFW_PARENT_HOSTNAME": socket.gethostname(),
            "DEFW_PARENT_PORT": str(self.parent_port),
            "DEFW_PARENT_NAME": self.parent,
            "DEFW_ONLY_LOAD_MODULE": modules,
            "DEFW_LOAD_NO_INIT": "",
            f"DEFW_DISABLE_{parent}": "no",
            "DEFW_LOG_DIR": str(logs),
            "DEFW_LOG_LEVEL": "error",
            "DEFW_PY_LOGLEVEL": "critical",
            "DEFW_EXPECTED_AGENT_COUNT": "1",
            "DEFW_EXTERNAL_SERVICES_PATH": self.inside["services"],
            "DEFW_EXTERNAL_SERVICE_APIS_PATH": ":".join(str(path) for path in self.apis[:1]),
            "DEFW_EXTERNAL_EXPERIMENTS_PATH": "",
            "QFW_QPM_ASSIGNED_HOSTS": f"{socket.gethostname()}:2",
            "SIMENV_HOME": str(self.home),
            "SIMENV_QPM_RESERVATIONS": "optional",
            "SIMENV_QPM_PRIVATE": "yes" if self.private else "no",
            "SIMENV_PYTHON": self.python,
        }

    def _stubs(self) -> Path:
        """Make the client classes of the six bindings from simenv's own tables; return their
        folder."""
        folder = self.folder / "stubs"
        folder.mkdir()
        subprocess.run([self.python, str(APPS / "stubs.py"), str(folder)], check=True)
        return folder


class App:
    def __init__(self, child: subprocess.Popen[bytes], logs: Path) -> None:
        self.child, self.logs = child, logs

    def lines(self) -> list[dict[str, Any]]:
        text = (self.logs / "out").read_text(errors="replace")
        return [json.loads(line[4:]) for line in text.splitlines() if line.startswith("@@@ ")]

    def wait_for_line(self, kind: str, timeout_s: float = APP_S) -> dict[str, Any]:
        """Wait for the first line of that kind. Raises RuntimeError if none comes."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            for line in self.lines():
                if line["kind"] == kind:
                    return line
            if self.child.poll() is not None:
                break
            time.sleep(0.02)
        raise RuntimeError(f"it never said {kind!r}; see {self.logs}")

    def end(self, timeout_s: float = APP_S) -> list[dict[str, Any]]:
        try:
            self.child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.child.kill()
            raise RuntimeError(f"no end within {timeout_s:g} s; see {self.logs}") from None
        return self.lines()


def _free_port() -> int:
    with socket.socket() as result:
        result.bind(("127.0.0.1", 0))
        port: int = result.getsockname()[1]
        return port


def leaving(host: Host, report: Report, runs: int) -> None:
    """An application registers, submits one circuit and leaves on its event; repeated `runs`
    times."""
    waits = []
    for _ in range(runs):
        lines = host.run("leaving")
        waits += [line["seconds"] for line in lines if line["kind"] == "result"]
    report.at_least("leaving_share", 100 * len(waits) / runs)
    report.seconds("leaving_worst_s", max(waits, default=float("inf")))


def backends(host: Host, report: Report, runs: int) -> None:
    """Two backends in one application, then one in each of two applications at the same time."""
    count = min(50, runs)
    for label, apps in (("one application", [("01", "10")]), ("two", [("01",), ("10",)])):
        started = [host.start_app("backends", str(count), *bits) for bits in apps]
        lines = [line for app in started for line in app.end()]
        own = sum(line["own"] for line in lines if line["kind"] == "own")
        report.at_least("own_share", 100 * own / (2 * count), f"backends in {label}")


def killed(host: Host, report: Report, _: int) -> None:
    """The service gets SIGKILL while an application polls, and is started again. The application
    makes no call but its polls."""
    app = host.start_app("polling", "12")
    app.wait_for_line("submitted")
    kill = time.monotonic()
    host.kill_environment()
    app.wait_for_line("not-ready", 30)
    host.simenv("up", "--restore")
    app.wait_for_line("result", 60)
    heard_s = time.monotonic() - kill
    end = next(line for line in app.end() if line["kind"] == "end")
    report.seconds("killed_heard_s", heard_s, host.name)
    report.at_most("killed_lost", end["left"], host.name)
    report.at_most("killed_unheard", end["unheard"], host.name)


def stopped(host: Host, report: Report, _: int) -> None:
    """A registered client gets SIGSTOP before its events come, and receives all of them later.
    Another client is served meanwhile. It is connected before: QFw's resource manager asks every
    client at each lookup, and would wait for the stopped one itself."""
    other = host.start_app("second_client")
    other.wait_for_line("connected")
    app = host.start_app("stopping", "3")
    app.wait_for_line("submitted")
    app.child.send_signal(signal.SIGSTOP)
    end = time.monotonic() + APP_S  # kernels of this width may have to be compiled first
    while json.loads(host.simenv("--json", "status"))["done"] < 3:
        if time.monotonic() > end:
            raise RuntimeError("the stopped client's circuits do not end")
    try:
        (other.logs / "go").touch()
        waits = [line["seconds"] for line in other.end(60) if line["kind"] == "result"]
    finally:
        app.child.send_signal(signal.SIGCONT)
    received = sum(line["all"] for line in app.end() if line["kind"] == "result")
    worst_s = max(waits) if len(waits) == 10 else float("inf")
    report.seconds("stopped_worst_s", worst_s)
    report.at_most("stopped_lost", 3 - received)


def overhead(host: Host, report: Report, runs: int) -> None:
    """simenv's share of a call: `sync_run` in turns with that of a plugin that does nothing."""
    path = host.folder / "circuit.qasm"
    path.write_text(CIRCUIT)
    (line,) = host.run("overhead", str(path), str(max(4, runs // 2)))
    print_overhead(report, host.revision, line["times"], line["block"])


def print_overhead(
    report: Report, revision: int, times: dict[str, list[float]], block: int
) -> None:
    """Print the times of both plugins; add the verdict on the share. Blocks of calls are compared
    with their neighbours, because the host's own time drifts by more than the share."""
    p50s = []
    for name, values in times.items():
        low, middle, high = (1e3 * value for value in statistics.quantiles(values, n=4))
        print(f"       {name:8} p25 {low:.2f}  p50 {middle:.2f}  p75 {high:.2f} ms")
        starts = range(0, len(values), block)
        p50s.append([statistics.median(values[at : at + block]) for at in starts])
    shares = [own - null for own, null in zip(*p50s, strict=True)]
    for key in ("promised", "p50"):
        report.seconds(f"share{revision}_{key}_ms", shares)


def private(host: Host, report: Report, runs: int) -> None:
    """The rows in an environment that the service starts; then the service gets SIGKILL."""
    folder = host.folder / "private"
    folder.mkdir()
    own = Host(host.qfw, host.defw, host.python, folder, private=True)
    with own.up():
        rows(own, report, runs)
        started = psutil.Process(own.daemons["simenv"]).children(recursive=True)
    end = time.monotonic() + START_S
    while (left := list(filter(_is_alive, started))) and time.monotonic() < end:
        time.sleep(0.1)
    report.at_least("private_processes", len(started), own.name)
    report.at_most("private_left", len(left), own.name)


def _is_alive(process: psutil.Process) -> bool:
    """True unless a process has ended; a zombie has."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def rows(host: Host, report: Report, _: int) -> None:
    """Requirements of applications, one by one."""
    results = [line for line in host.run(f"rows{host.revision}") if line["kind"] == "row"]
    for line in results:
        if line["why"]:
            print(f"       {line['name']}: {line['why']}")
    passed = sum(not line["why"] for line in results)
    report.at_least(f"rows{host.revision}", passed, host.name)


def examples(host: Host, report: Report, _: int) -> None:
    """QFw's own example scripts, unmodified; those that lack a package did not run."""
    states = []
    for script, *args in EXAMPLES:
        app = host.start(host.qfw / "examples" / "tests" / script, *args)
        with contextlib.suppress(RuntimeError):
            app.end(120)
        text = (app.logs / "out").read_text(errors="replace")
        states.append(example_state(text, app.child.returncode))
        print(f"       {script} {' '.join(args)}: {states[-1]}; see {app.logs}")
    report_examples(report, states)


def asynchronous(host: Host, report: Report, runs: int) -> None:
    """QFw's asynchronous example, unmodified, `runs` times: in each, one thread submits while
    events arrive for another. Without the lock around DEFw's sending some runs never end."""
    states = []
    for _ in range(runs):
        app = host.start(host.qfw / "examples" / "tests" / ASYNC[0], *ASYNC[1:])
        with contextlib.suppress(RuntimeError):
            app.end(ASYNC_S)
        text = (app.logs / "out").read_text(errors="replace")
        states.append(example_state(text, app.child.returncode))
    if set(states) - {DONE, FAILED}:
        return report.not_measured("async_done", states[-1])
    report.at_least("async_done", 100 * states.count(DONE) / runs)


DONE, FAILED = "done", "failed"


def example_state(text: str, status: int | None) -> str:
    """Return DONE or FAILED for an example with this output and status, None if it did not end;
    else the line that names the package it lacks."""
    lines = [line for line in text.splitlines() if any(error in line for error in _MISSING)]
    if lines and "simenv" not in lines[-1]:
        return lines[-1][:120]
    return FAILED if status != 0 or "Traceback" in text else DONE


def report_examples(report: Report, states: Sequence[str]) -> None:
    """Add the number of examples that ran, and of these, that failed."""
    ran = [state for state in states if state in (DONE, FAILED)]
    report.at_least("examples_run", len(ran))
    report.at_most("examples_failed", ran.count(FAILED))


_MISSING = ("ModuleNotFoundError: ", "ImportError: ")
SUPERMARQ = ("--iterations", "2", "--shots", "10", "--method", "ghz")
EXAMPLES = (
    ("test_init_qfw.py",),
    ("test_qiskit_simple.py", "4"),
    ("test_qiskit_ghz.py", "4", "nwqsim", "3"),
    ("test_qiskit_ghz.py", "4", "tnqvm", "3"),
    ("test_qiskit_vqe.py", "1"),
    ("test_qiskit_qaoa.py", "nwqsim"),
    ("test_pennylane.py",),
    ("test_pennylane_ghz.py", "4", "nwqsim", "2"),
    *(("test_supermarq.py", "--run", way, *SUPERMARQ) for way in ("sync", "async")),
)
ASYNC = ("test_supermarq.py", "--run", "async", "--iterations", "20", *SUPERMARQ[2:])
ASYNC_S = 150.0  # its own patience is 100 s
Drill = Callable[[Host, Report, int], None]
DRILLS: dict[int, dict[str, Drill]] = {
    1: {
        "rows": rows, "leaving": leaving, "backends": backends, "stopped": stopped,
        "killed": killed, "private": private, "examples": examples, "asynchronous": asynchronous,
        "overhead": overhead,
    },
    2: {"rows": rows, "killed": killed, "private": private, "overhead": overhead},
}  # fmt: skip
