"""A PMIx tool by ctypes: it asks a PRTE DVM to start, end and list jobs.

It is deliberately no PMIx *launcher*: such a one forks processes itself, on its own machine, when
its connection is lost; a plain tool gets an error. Nothing here waits: answers and events come to
the callbacks, on the library's own thread.
"""

from __future__ import annotations

import ctypes as c
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import launcher.pmix.abi as p

# PRTE ends itself over a mapping it cannot parse: these two are all that is ever sent. `seq`: rank
# k goes to the k-th host named, whatever room PRTE thinks there is; our ledger is the one that
# counts.
MAP_RANKS = "seq:OVERSUBSCRIBE"
MAP_ANYWHERE = "slot:OVERSUBSCRIBE"


LOST = (p.UNREACHABLE, p.LOST_CONNECTION)  # codes: whatever was asked, no DVM does it


class PmixError(Exception):
    """The library refused; the message says what and its words."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Tool:
    """One connection to a DVM; a process can have one.

    `spawned(id, code, namespace, words)`, `ended(namespace, code, words)` and `listed(namespaces)`
    are called on the library's thread and must not raise.
    """

    def __init__(
        self,
        uri: str,
        library: Path,
        preload: Sequence[Path],
        *,
        spawned: Callable[[int, int, str, str], None],
        ended: Callable[[str, int, str], None],
        listed: Callable[[list[str]], None],
    ) -> None:
        for path in preload:
            c.CDLL(str(path), mode=c.RTLD_GLOBAL)
        self._lib = c.CDLL(str(library))
        self._lib.PMIx_Error_string.restype = c.c_char_p
        # Version 4 has no such function; then the event has to do.
        self._asked = getattr(self._lib, "PMIx_tool_is_connected", None)
        if self._asked is not None:
            self._asked.restype = c.c_bool
        self._lost = False
        self._spawned, self._ended, self._listed = spawned, ended, listed
        self._kept: dict[int, tuple[object, ...]] = {}  # what the library still reads
        self._count = 0
        self._on_spawned = p.OnSpawned(self._spawn_answer)
        self._on_info = p.OnInfo(self._info_answer)
        self._on_event = p.OnEvent(self._event)
        self._init(uri)

    def _init(self, uri: str) -> None:
        settings: list[p.Setting] = [
            ("pmix.tool.nspace", p.STRING, f"simenv.{os.uname().nodename}.{os.getpid()}"),
            ("pmix.tool.rank", p.PROC_RANK, 0),
            ("pmix.srvr.uri", p.STRING, uri),
        ]
        me = p.Proc()
        count = c.c_size_t(len(settings))
        self._check(
            self._lib.PMIx_tool_init(c.byref(me), p.infos(settings), count), "cannot connect"
        )
        codes = (c.c_int * 2)(p.JOB_END, p.LOST_CONNECTION)
        none = c.c_size_t(0)
        register = self._lib.PMIx_Register_event_handler
        handler = register(codes, c.c_size_t(2), None, none, self._on_event, None, None)
        if handler < 0:
            self._check(handler, "no events")

    def connected(self) -> bool:
        return bool(self._asked()) if self._asked is not None else not self._lost

    def spawn(
        self, key: int, argv: Sequence[str], env: Sequence[str], cwd: str, hosts: Sequence[str]
    ) -> None:
        """Start a job with rank k on hosts[k]; `spawned` tells what came of it. `env`: "NAME=value"
        beside what the DVM has. `cwd` must exist everywhere: PRTE says nothing if it does not."""
        placed: list[p.Setting] = [("pmix.host", p.STRING, ",".join(hosts))]
        self._spawn(key, argv, env, cwd, len(hosts), MAP_RANKS, placed)

    def grow(self, key: int, hosts: Sequence[str]) -> None:
        """Add nodes ("name:slots") to the DVM: a job that ends at once carries the order. It names
        no host of its own: PRTE hangs over an order that does both."""
        added: list[p.Setting] = [("pmix.addhost", p.STRING, ",".join(hosts))]
        self._spawn(key, ["/bin/sh", "-c", "sleep 0.1"], [], "/", 1, MAP_ANYWHERE, added)

    def kill(self, namespace: str) -> None:
        """SIGTERM to every rank of a job, SIGKILL a second later. There is no way to send another
        signal: PRTE sends those to the ranks of all jobs."""
        target = p.Proc()
        target.nspace, target.rank = namespace.encode(), p.RANK_WILDCARD
        order = p.infos([("pmix.jctrl.kill", p.BOOL, True)])
        one = c.c_size_t(1)
        key = self._keep(target, order)
        control = self._lib.PMIx_Job_control_nb
        self._check(
            control(c.byref(target), one, order, one, self._on_info, c.c_void_p(key)), "not killed"
        )

    def ask(self) -> None:
        """Which namespaces live; `listed` tells."""
        query = (p.Query * 1)()
        keys = p.strings(["pmix.qry.ns"])
        query[0].keys = keys
        key = self._keep(query, keys)
        ask = self._lib.PMIx_Query_info_nb
        self._check(ask(query, c.c_size_t(1), self._on_info, c.c_void_p(key)), "no answer")

    def _spawn(
        self,
        key: int,
        argv: Sequence[str],
        env: Sequence[str],
        cwd: str,
        ranks: int,
        map_by: str,
        settings: list[p.Setting],
    ) -> None:
        if not self.connected():
            raise PmixError("the connection to the DVM is lost", p.LOST_CONNECTION)
        job: list[p.Setting] = [
            ("pmix.pers", p.STRING, "ompi"),
            ("pmix.notecomp", p.BOOL, True),
            ("pmix.note.jev", p.BOOL, True),
            ("pmix.mapby", p.STRING, map_by),
            ("pmix.bindto", p.STRING, "none"),
        ]
        jobs, infos = p.infos(job), p.infos(settings)
        words, variables = p.strings(argv), p.strings(env)
        apps = (p.App * 1)()
        app = apps[0]
        app.cmd, app.argv, app.env, app.cwd = argv[0].encode(), words, variables, cwd.encode()
        app.maxprocs, app.info, app.ninfo = ranks, infos, len(settings)
        kept = self._keep(key, jobs, infos, words, variables, apps)
        code = self._lib.PMIx_Spawn_nb(
            jobs, c.c_size_t(len(job)), apps, c.c_size_t(1), self._on_spawned, c.c_void_p(kept)
        )
        self._check(code, "not started")

    def _keep(self, *things: object) -> int:
        self._count += 1
        self._kept[self._count] = things
        return self._count

    def _check(self, code: int, what: str) -> None:
        if code not in (p.SUCCESS, p.OPERATION_SUCCEEDED):
            raise PmixError(f"{what}: {self._words(code)}", code)

    def _words(self, code: int) -> str:
        said: bytes = self._lib.PMIx_Error_string(code) or b""
        return f"{said.decode()} ({code})"

    # --- on the library's thread -----------------------------------------------------------------

    def _spawn_answer(self, code: int, namespace: bytes | None, kept: int) -> None:
        key = self._kept.pop(kept)[0]
        assert isinstance(key, int)
        good = code in (p.SUCCESS, p.OPERATION_SUCCEEDED)
        words = "" if good else self._words(code)
        self._spawned(key, 0 if good else code, (namespace or b"").decode(), words)

    def _info_answer(
        self, code: int, info: object, count: int, kept: int, release: int, released: int
    ) -> None:
        self._kept.pop(kept, None)
        said = p.read(info, count).get("pmix.qry.ns") if code == p.SUCCESS else None
        if release:
            p.Release(release)(released)
        if isinstance(said, str):
            self._listed([name for name in said.split(",") if name])

    def _event(
        self,
        _handler: int,
        status: int,
        _source: object,
        info: object,
        count: int,
        _results: int,
        _results_count: int,
        done: int,
        data: int,
    ) -> None:
        try:
            if status == p.LOST_CONNECTION:
                self._lost = True
                return
            said = p.read(info, count)
            namespace, code = said.get("pmix.evproc"), said.get("pmix.job.term.status", 0)
            if isinstance(namespace, str):
                self._ended(namespace, int(code), "" if int(code) >= 0 else self._words(int(code)))
        finally:
            if done:
                p.EventDone(done)(p.EVENT_ACTION_COMPLETE, None, 0, None, None, data)
