"""Facts about a plugin that are collected while it is loaded; sent as plain data."""

from __future__ import annotations

from typing import Any

import msgspec


class PluginFacts(msgspec.Struct, frozen=True):
    """Facts about a loaded plugin. `*_error`: a traceback, "" if none was raised. Seconds are wall
    clock."""

    folder: str
    module: str = ""
    before: dict[str, Any] = {}  # `ProcessFacts` before the plugin was loaded
    import_error: str = ""
    svc_info: dict[str, Any] = {}
    svc_info_found: str = ""  # its type, "" if it is missing
    classes: list[str] = []
    classes_found: str = ""
    initialize_error: str = ""
    initialize_s: float = 0.0
    has_initialize: bool = False
    has_uninitialize: bool = False
    start_false_s: float = 0.0
    start_false_error: str = ""
    start_false_left: list[str] = []  # threads, processes, files
    query_error: str = ""
    signatures: dict[str, list[list[Any]]] = {}  # [name, kind, has a default, default]


class ProcessFacts(msgspec.Struct, frozen=True):
    """Threads, children and open files of a process, for comparison."""

    threads: list[str]
    children: list[int]
    files: int


def left(before: ProcessFacts, after: ProcessFacts) -> list[str]:
    """Threads, processes and files in `after` that `before` lacks."""
    results = [f"thread {name}" for name in after.threads if name not in before.threads]
    results += [f"process {pid}" for pid in after.children if pid not in before.children]
    if after.files > before.files:
        results.append(f"{after.files - before.files} open files")
    return results
