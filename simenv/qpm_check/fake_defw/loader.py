"""Loader of a plugin as in DEFw, and documents on a socket.

A document on a socket is a header with the length, then YAML, in two writes as in DEFw. Invariant:
only plain data is written. Another value is converted and its place is reported: a real host would
have sent a Python object that the receiver may be unable to read.

`LoadedPlugin` loads by the name of the plugin's folder, with the parent folder on the path.
Invariant: an exception of a plugin during loading does not end this process; it is recorded, which
DEFw does not do.
"""

from __future__ import annotations

import importlib
import inspect
import numbers
import socket
import struct
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import yaml

from simenv.qpm_check.fake_defw.fakes import PluginFacts, ProcessFacts, left
from simenv.qpm_check.target import impurities

_HEAD = struct.Struct(">4sI")
_MAGIC = b"QPM1"
MOST_BYTES = 256 * 2**20
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

Document = dict[str, Any]


class PeerGone(Exception):
    """The peer has closed the connection, or its stream has lost the framing."""


def pack(document: Document) -> tuple[bytes, bytes]:
    """Header and body of a document."""
    text = yaml.dump(document, Dumper=_DUMPER, allow_unicode=True, default_flow_style=True)
    body = text.encode("utf-8", "surrogatepass")
    return _HEAD.pack(_MAGIC, len(body)), body


def receive(connection: socket.socket) -> Document:
    """Read the next document. Raises PeerGone."""
    magic, size = _HEAD.unpack(_exactly(connection, _HEAD.size))
    if magic != _MAGIC or size > MOST_BYTES:
        raise PeerGone("the stream has lost its framing")
    result = yaml.load(_exactly(connection, size), Loader=_LOADER)  # noqa: S506 - a safe loader
    if not isinstance(result, dict):
        raise PeerGone(f"a document of type {type(result).__name__}")
    return result


def purified(value: Any) -> tuple[Any, list[str]]:
    """Return the value as plain data, and the places that were not plain."""
    result = impurities(value)
    return (_plain(value), result) if result else (value, result)


class Sender:
    """Writer of documents to one peer. `collisions`: number of concurrent writes, which would mix
    messages on a socket of DEFw's; here the second waits."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._writing = threading.Lock()
        self.collisions = 0
        self.pause_s = 0.0  # between the two writes: makes collisions likely

    def send(self, document: Document) -> None:
        """Write header and body. Raises PeerGone."""
        header, body = pack(document)
        if not self._writing.acquire(blocking=False):
            self.collisions += 1
            self._writing.acquire()
        try:
            self._connection.sendall(header)
            if self.pause_s:
                time.sleep(self.pause_s)
            self._connection.sendall(body)
        except OSError as error:
            raise PeerGone(str(error)) from error
        finally:
            self._writing.release()


def _exactly(connection: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        try:
            part = connection.recv(min(size, 2**20))
        except OSError as error:
            raise PeerGone(str(error)) from error
        if not part:
            raise PeerGone("the other side has closed")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    return repr(value)


QPM = "QPM"
PREFIX = "svc_"
OURS = "standin"  # prefix of the names of threads that are not the plugin's
TRIES = 20


class LoadedPlugin:
    """Plugin in this process: its class and the facts about it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.module: ModuleType | None = None
        self.kind: type | None = None
        self.singleton = False
        self._found: dict[str, Any] = {"folder": str(folder), "module": folder.name}
        self._found["before"] = msgspec.to_builtins(now())

    def load(self) -> None:
        """Import, import again, read the metadata, initialize. DEFw reloads the package right after
        its first import: `__init__` is executed twice, the submodules once."""
        sys.path.insert(0, str(self.folder.parent))
        try:
            self.module = importlib.reload(importlib.import_module(self.folder.name))
        except BaseException:  # noqa: BLE001 - a plugin may raise anything, SystemExit too
            self._found["import_error"] = traceback.format_exc()
            return
        self._read_metadata(self.module)
        self._initialize(self.module)

    def probe(self) -> None:
        """Measure the cost and the leftovers of `QPM(start=False)`, and read its signatures."""
        if self.kind is None:
            return
        self._found["signatures"] = _signatures(self.kind)
        before, best_s = now(), float("inf")
        try:
            for _ in range(TRIES):
                begun = time.perf_counter()
                self.kind(start=False)
                best_s = min(best_s, time.perf_counter() - begun)
        except BaseException:  # noqa: BLE001
            self._found["start_false_error"] = traceback.format_exc()
            return
        self._found["start_false_s"] = best_s
        self._found["start_false_left"] = left(before, now())

    def query(self) -> dict[str, Any]:
        """Make a metadata query as every lookup does: construct, call, discard."""
        assert self.kind is not None
        info = self.kind(start=False).query()
        capability = getattr(info, "capability", None)
        card = {
            "service_name": getattr(info, "service_name", None),
            "description": getattr(info, "service_description", None),
            "class_name": getattr(info, "class_name", None),
            "module_name": getattr(info, "module_name", None),
            "types": getattr(capability, "cap_type", None),
            "capabilities": getattr(capability, "caps", None),
            "text": getattr(capability, "desc", None),
            "max_capacity": getattr(info, "max_capacity", None),
            "properties": getattr(info, "properties", None),
            "home": [self.kind.__module__, self.kind.__name__],
        }
        plain, impure = purified(card)
        return {"card": plain, "impure": [text for text in impure if "['properties']" in text]}

    def facts(self) -> PluginFacts:
        return PluginFacts(**purified(self._found)[0])

    def _read_metadata(self, module: ModuleType) -> None:
        info = getattr(module, "svc_info", None)
        classes = getattr(module, "service_classes", None)
        self._found["svc_info_found"] = "" if info is None else type(info).__name__
        self._found["classes_found"] = "" if classes is None else type(classes).__name__
        if isinstance(info, dict):
            self._found["svc_info"] = {str(key): value for key, value in info.items()}
            self.singleton = info.get("instance_mode") == "singleton"
        if isinstance(classes, list | tuple):
            self._found["classes"] = [getattr(kind, "__name__", repr(kind)) for kind in classes]
            self.kind = next(
                (k for k in classes if isinstance(k, type) and k.__name__ == QPM), None
            )

    def _initialize(self, module: ModuleType) -> None:
        self._found["has_uninitialize"] = callable(getattr(module, "uninitialize", None))
        initialize = getattr(module, "initialize", None)
        self._found["has_initialize"] = callable(initialize)
        if not callable(initialize):
            return
        begun = time.perf_counter()
        try:
            initialize()
        except BaseException:  # noqa: BLE001 - DEFw ignores it; here a check reports it
            self._found["initialize_error"] = traceback.format_exc()
        self._found["initialize_s"] = time.perf_counter() - begun

    def uninitialize(self) -> str:
        """Call `uninitialize` as at an orderly exit; return the traceback if it raised."""
        end = getattr(self.module, "uninitialize", None)
        if callable(end):
            try:
                end()
            except BaseException:  # noqa: BLE001
                return traceback.format_exc()
        return ""


def candidates(plugin: Path) -> list[Path]:
    """Service folders that DEFw would find below PLUGIN/services."""
    services = plugin / "services"
    if not services.is_dir():
        return []
    return sorted(
        path for path in services.iterdir()
        if path.name.startswith(PREFIX) and (path / "__init__.py").is_file()
    )  # fmt: skip


def now() -> ProcessFacts:
    """Present threads, children and open files of this process."""
    children: list[int] = []
    for task in Path("/proc/self/task").glob("*/children"):  # each of what that thread started
        with suppress(OSError):  # the thread has ended: its children are those of another one
            children += map(int, task.read_text().split())
    files = Path("/proc/self/fd")
    return ProcessFacts(
        [f"{thread.name} ({thread.ident})" for thread in threading.enumerate()],
        children,
        len(list(files.iterdir())) if files.is_dir() else 0,
    )


def _signatures(kind: type) -> dict[str, list[list[Any]]]:
    entries = {}
    for name, method in inspect.getmembers(kind, callable):
        if name.startswith("_"):
            continue
        try:
            parameters = list(inspect.signature(method).parameters.values())
        except (TypeError, ValueError):
            continue
        if not isinstance(inspect.getattr_static(kind, name), staticmethod | classmethod):
            parameters = parameters[1:]
        entries[name] = [
            [parameter.name, parameter.kind.name, parameter.default is not parameter.empty,
             None if parameter.default is parameter.empty else purified(parameter.default)[0]]
            for parameter in parameters
        ]  # fmt: skip
    return entries
