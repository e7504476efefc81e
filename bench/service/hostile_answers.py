"""Clients that do not read their answers, or ask for large ones: what they cost the others.

Each attack runs in a process of its own, with one token or none, while another user asks for the
pools over a new connection each time. The figures are the 99th percentile of that user's answer
times, the growth of the gateway's memory, and the descriptors that it still has when the clients
have left. Attacks: 260 connections that ask for a file of the page again and again; 260 that wait
for one task; 60 that ask for a stored job of 32 MiB; bodies of 60 MiB of JSON of three shapes; a
job of 60 MiB; 40 downloads of a state vector of 64 MiB.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import socket
import time
import urllib.error
import urllib.request
from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from bench.harness import Option, Report, probed
from bench.harness.environments import home, simenv as command
from bench.service.gateway import Connection, served

IBM = "/experimental/api/v1"
LOOK_S, PAUSE_S, SETTLE_S = 0.05, 0.02, 10.0
UNREAD_JOBS, DOWNLOADS = 60, 40  # connections
LONG = (
    'OPENQASM 3; include "stdgates.inc"; qubit[20] q; bit[20] c; reset q; '
    "for int i in [0:20000] { h q; cx q[0], q[1]; } c = measure q;"
)
OPTIONS = (
    Option("--connections", default=260, help="that are not read", quick=60),
    Option("--mib", default=60, help="of a body", quick=8),
    Option("--qubits", default=22, help="of the state that is sent", quick=20),
    Option("--seconds", default=8.0, help="of each attack", quick=2.0),
)
Address = tuple[str, int]


def run(options: Namespace) -> Report:
    report = Report("hostile_answers", f"{options.connections} connections that are not read")
    with home(), served(2) as (url, tokens):
        host, _, port = url.removeprefix("http://").partition(":")
        address, token = (host, int(port)), tokens[1]
        status = json.loads(command(["gateway", "status", "--name", "bench", "--json"]))
        gateway = psutil.Process(status["pid"])
        attacks = _attacks(url, token, options)

        def ask() -> None:
            connection = Connection(url, tokens[0])
            connection.request("GET", "/pools")
            connection.close()

        with probed({"good": ask}, PAUSE_S) as times:
            time.sleep(options.seconds)
        print(f"alone: p99 {1e3 * float(np.percentile(times['good'], 99)):.0f} ms")
        growths, left = [], []
        for name, attack in attacks.items():
            before, descriptors = gateway.memory_info().rss, _descriptors(gateway)
            peaks, downloads = [before], [0]
            process = multiprocessing.get_context("spawn").Process(
                target=attack.work, args=(address, token, *attack.arguments)
            )
            with (
                probed({"memory": partial(_look, gateway, peaks, downloads)}, LOOK_S),
                probed({"good": ask}, PAUSE_S) as times,
            ):
                process.start()
                process.join()
            report.p99_ms("p99_ms", times["good"], f"answers to another user, {name}")
            growths.append((max(peaks) - before) / 2**20)
            print(f"{name}: {growths[-1]:.0f} MiB more at most, {max(downloads)} downloads at once")
            if attack.reads_results and not max(downloads):
                raise SystemExit(f"{name}: no download was under way")
            left.append(_left(gateway, descriptors))
    report.at_most("memory_mib", max(growths), "growth of the gateway's memory, MiB")
    report.at_most("descriptors", max(left), "descriptors after the clients have left")
    return report


class Attack(NamedTuple):
    """A function, which runs in a process of its own, and its arguments after address and token."""

    work: Callable[..., None]
    arguments: tuple[object, ...]
    reads_results: bool = False  # from their files, as long as its connections are open


def _attacks(url: str, token: str, options: Namespace) -> dict[str, Attack]:
    """Prepare what is asked for; return the attacks by name."""
    page = urllib.request.urlopen(f"{url}/ui/").read().decode()
    file = re.findall(r"/ui/static/[^\"]+", page)[0].rpartition("/")[0] + "/uplot.js"
    gates = "".join(f"ry(0.{k}1) q[{k}];" for k in range(options.qubits))
    text = f'OPENQASM 2.0; include "qelib1.inc"; qreg q[{options.qubits}]; {gates}'
    exact = {"shots": None, "outputs": "statevector", "engine": "statevector"}
    state = _posted(url, token, "/api/v1/tasks", {"program": text, **exact})
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/x-npz"}
    ended = f"{url}/api/v1/tasks/{state}/result?wait=60"
    with urllib.request.urlopen(urllib.request.Request(ended, headers=headers)) as answer:
        print(f"a download has {len(answer.read()) / 2**20:.0f} MiB")
    long = _posted(url, token, "/api/v1/tasks", {"program": LONG, "shots": 10**6})
    size, many, seconds = options.mib * 2**20, options.connections, options.seconds
    number = _posted(url, token, f"{IBM}/jobs", _job(size // 2))
    paths = {
        "held answers": (f"/api/v1/tasks/{long}/result?wait=60", many),
        "unread jobs": (f"{IBM}/jobs/{number}", UNREAD_JOBS),
        "unread downloads": (f"/api/v1/tasks/{state}/result", DOWNLOADS),
    }
    attacks = {"unread files": Attack(_unread, (file, many, seconds, 60))}
    attacks |= {
        name: Attack(_unread, (path, count, seconds), name == "unread downloads")
        for name, (path, count) in paths.items()
    }
    attacks["large JSON"] = Attack(_large, ("/api/v1/tasks", size))
    attacks["large jobs"] = Attack(_large, (f"{IBM}/jobs", size))
    return attacks


def _job(size: int) -> dict[str, object]:
    circuit = "OPENQASM 3;" + " " * size
    return {"program_id": "sampler", "backend": "main", "params": {"pubs": [[circuit]]}}


def _posted(url: str, token: str, path: str, body: dict[str, object]) -> str:
    """Send a body; return the id of what was accepted."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(url + path, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return str(json.loads(answer.read())["id"])
    except urllib.error.HTTPError as error:
        raise SystemExit(f"POST {path}: {error.read()[:500]!r}") from error


def _unread(
    address: Address, token: str, path: str, count: int, seconds: float, times: int = 1
) -> None:
    """Open connections that send a request some times and read nothing."""
    head = f"GET {path} HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n"
    if "result" in path and "wait" not in path:
        head = f"GET {path} HTTP/1.1\r\nHost: a\r\nAccept: application/x-npz\r\n"
    if times == 1:
        head += f"Authorization: Bearer {token}\r\n"
    with ExitStack() as opened:
        for _ in range(count):
            connection = opened.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            with suppress(OSError):
                connection.connect(address)
                connection.sendall(f"{head}\r\n".encode() * times)
        time.sleep(seconds)


def _large(address: Address, token: str, path: str, size: int) -> None:
    """Send large bodies, one after the other."""
    floats = "[" + ",".join(["0.1"] * 1_000) + "]"
    values = {
        "floats": "[" + ",".join([floats] * (size // 4_010)) + "]",
        "lists": "[" + ",".join(["[]"] * (size // 3)) + "]",
        "names": "{" + ",".join(f'"{k:x}":0' for k in range(size // 12)) + "}",
    }
    bodies = [f'{{"program":"OPENQASM 3;","parameter_values":{each}}}' for each in values.values()]
    if path.endswith("/jobs"):
        bodies = [json.dumps(_job(size - 1_000))] * 3
    for body in bodies:
        with socket.create_connection(address) as connection:
            head = f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            with suppress(OSError):
                connection.sendall(f"{head}Connection: close\r\n\r\n{body}".encode())
            answer = b""
            with suppress(OSError):
                while part := connection.recv(65_536):
                    answer += part
            print(answer[:300].decode(errors="replace").replace("\r\n", " | "))


def _look(gateway: psutil.Process, peaks: list[int], downloads: list[int]) -> None:
    peaks.append(gateway.memory_info().rss)
    downloads.append(_results(gateway))


def _links(gateway: psutil.Process) -> list[str]:
    """Return what the descriptors of the gateway refer to."""
    links = []
    for each in Path(f"/proc/{gateway.pid}/fd").iterdir():
        with suppress(OSError):  # it was closed meanwhile
            links.append(os.readlink(each))
    return links


def _results(gateway: psutil.Process) -> int:
    """Return how many result files the gateway reads or has mapped."""
    maps = Path(f"/proc/{gateway.pid}/maps").read_text()
    return maps.count(".h5\n") + sum(link.endswith(".h5") for link in _links(gateway))


def _descriptors(gateway: psutil.Process) -> int:
    """Return how many sockets and files are open, and result files are mapped; pipes to processes
    of users stay."""
    opened = [link for link in _links(gateway) if not link.startswith(("pipe:", "anon_inode:"))]
    return len(opened) + Path(f"/proc/{gateway.pid}/maps").read_text().count(".h5\n")


def _left(gateway: psutil.Process, before: int) -> int:
    """Return how many descriptors more than before the gateway has, once it has seen to the ends of
    the connections."""
    end_s = time.monotonic() + SETTLE_S
    while (more := _descriptors(gateway) - before) > 0 and time.monotonic() < end_s:
        time.sleep(LOOK_S)
    return max(0, more)
