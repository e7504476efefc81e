"""Child processes with frames are built once, in `simenv.sandbox`."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
from source_trees import parsed

ROOT = Path(__file__).parents[2]
PACKAGES = ("launcher", "noise_models", "simenv", "simulators")
SANDBOX = "simenv/sandbox/"
# Modules that start programs without frames, which run on while this process does other things.
STARTERS = {
    "launcher/process/children.py",  # workers: ranks, mpirun, agents of other nodes
    "launcher/prte/dvm.py",  # prte
    "launcher/prte/dvm_supervisor.py",  # the agent that tests a node
    "simenv/cli/execute.py",  # the user's own program
    "simenv/client/launch.py",  # the service
    "simenv/qpm_check/plugin.py",  # a plugin, which speaks DEFw's protocol over a socket
    "simenv/service/hooks.py",  # commands of the site, below timeout(1)
}
PAIRS = {"simenv/service/identities.py"}  # whole packets, which outlive a process of the broker
LIMITS = {  # of what is no memory, time or output
    "simenv/gateway/__main__.py",  # open files
    "simenv/service/workers/endpoints.py",  # open files
}
# Formats of sockets and files, with a length in front, and numbers at a place of a structure.
FORMATS = {
    "simenv/client/circuits/native.py",  # keys of programs
    "simenv/gateway/peers.py",  # netlink's answers
    "simenv/service/journal/wal.py",  # SQLite's
    "simenv/transpiler/qpy.py",  # QPY's
    "simenv/wire/transport/read_ahead.py",  # tcp_info of the kernel
    "simenv/wire/transport/unix_streams.py",  # messages of clients and workers
}
STARTS = {
    "subprocess.Popen", "asyncio.create_subprocess_exec", "asyncio.create_subprocess_shell",
    "os.fork", "os.forkpty", "os.posix_spawn", "os.posix_spawnp", "os.popen",
}  # fmt: skip
LENGTHS = {
    f"struct.{name}" for name in ("Struct", "pack", "pack_into", "unpack", "unpack_from")
}  # fmt: skip
POOLS = {"multiprocessing", "concurrent.futures.process", "pty"}
INTEGERS = set("bBhHiIlLqQnN")


def dotted(node: ast.AST) -> str:
    """The name of a chain of attributes: `a.b.c`; "" if it begins with anything but a name."""
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return node.id if isinstance(node, ast.Name) else ""


def imported(tree: ast.Module) -> dict[str, str]:
    """What local names stand for, where an import gives them another one."""
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        if isinstance(node, ast.ImportFrom)
        else alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if alias.asname or isinstance(node, ast.ImportFrom)
    }


def resolved(node: ast.AST, names: dict[str, str]) -> str:
    """The name of a chain of attributes, whose first one an import may have given."""
    first, dot, rest = dotted(node).partition(".")
    return names.get(first, first) + dot + rest


def is_start(name: str) -> bool:
    return name in STARTS or name.startswith("os.spawn")


def is_length(call: ast.Call, name: str) -> bool:
    """Whether a call makes the format of one integer, which is the length of what follows."""
    if name not in LENGTHS or not call.args:
        return False
    text = call.args[0].value if isinstance(call.args[0], ast.Constant) else None
    return isinstance(text, str) and text.strip("<>=!@") in INTEGERS


def findings(tree: ast.Module) -> Iterator[str]:
    """Kinds of what a module does for a child process of its own: start, pair, limit, length."""
    names = imported(tree)
    types = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Subscript)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names]
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if POOLS & set(modules) or "ProcessPoolExecutor" in modules:
                yield "start"
        if isinstance(node, ast.Attribute | ast.Name) and id(node) not in types:
            name = resolved(node, names)  # also where it is called by another name later
            if is_start(name):
                yield "start"
            elif name == "socket.socketpair":
                yield "pair"
            elif name == "resource.setrlimit":
                yield "limit"
        if not isinstance(node, ast.Call):
            continue
        name = resolved(node.func, names)
        if is_start(name) or name.endswith((".subprocess_exec", ".subprocess_shell")):
            yield "start"
            piped = {k.arg for k in node.keywords if dotted(k.value).endswith("PIPE")}
            if {"stdin", "stdout"} <= piped:
                yield "pipes"
        elif is_length(node, name):
            yield "length"


@functools.cache
def modules() -> dict[str, set[str]]:
    """Modules outside the sandbox, by kind of what they do."""
    table: dict[str, set[str]] = {}
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        name = str(path.relative_to(ROOT))
        for kind in () if name.startswith(SANDBOX) else findings(parsed(path)):
            table.setdefault(kind, set()).add(name)
    return table


@pytest.mark.parametrize(
    ("kind", "allowed"),
    [
        ("start", STARTERS),
        ("pair", PAIRS),
        ("limit", LIMITS),
        ("pipes", set()),
        ("length", FORMATS),
    ],
)
def test_child_processes_are_those_of_the_sandbox(kind: str, allowed: set[str]) -> None:
    assert modules().get(kind, set()) == allowed, (
        "use simenv.sandbox; take a module off that does so now"
    )


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("start", "import subprocess\nsubprocess.Popen(['cat'])"),
        ("start", "from subprocess import Popen\nPopen(['cat'])"),
        ("start", "import asyncio\nasync def f(): await asyncio.create_subprocess_exec('cat')"),
        ("start", "import os\nif not os.fork(): pass"),
        ("start", "from multiprocessing import Process"),
        ("start", "from concurrent.futures import ProcessPoolExecutor"),
        ("pipes", "import subprocess as s\nsubprocess.Popen([], stdin=s.PIPE, stdout=s.PIPE)"),
        ("pipes", "import subprocess as s\ns.Popen([], stdin=s.PIPE, stdout=s.PIPE)"),
        ("start", "import subprocess\np = subprocess.Popen\np(['cat'])"),
        ("start", "import os\nos.spawnv(os.P_NOWAIT, '/bin/cat', ['cat'])"),
        ("start", "import os as system\nsystem.popen('cat')"),
        ("limit", "from resource import setrlimit as limit\nlimit(1, (1, 1))"),
        ("limit", "import resource as r\nr.setrlimit(1, (1, 1))"),
        ("length", "import struct\nsize, = struct.unpack_from('!Q', data)"),
        ("length", "import struct as s\nLENGTH = s.Struct('!Q')"),
        ("pair", "import socket\nleft, right = socket.socketpair()"),
        ("limit", "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1, 1))"),
        ("length", "import struct\nLENGTH = struct.Struct('!Q')"),
        ("length", "from struct import unpack\nsize, = unpack('<I', stream.read(4))"),
    ],
)
def test_a_second_mechanism_is_seen(kind: str, text: str) -> None:
    assert kind in findings(ast.parse(text))


@pytest.mark.parametrize(
    "text",
    [
        "import subprocess\nsubprocess.run(['cat'], check=True)",
        "import struct\nstruct.pack('<3H', 1, 2, 3)",
        "import resource\nresource.getrlimit(resource.RLIMIT_AS)",
    ],
)
def test_programs_that_are_waited_for_and_other_formats_are_allowed(text: str) -> None:
    assert not set(findings(ast.parse(text)))
