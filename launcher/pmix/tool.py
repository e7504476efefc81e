"""PMIx tool by ctypes, with which a PRTE DVM starts, ends and lists jobs.

It is deliberately no PMIx *launcher*: when its connection is lost, a launcher forks processes
itself, on its own machine; a plain tool gets an error. No call blocks: responses and events come to
the callbacks, on the library's own thread.
"""

from __future__ import annotations

import ctypes as c
import os
from collections.abc import Callable, Sequence
from pathlib import Path

# Struct layouts, data types and status codes of the PMIx ABI (version 4 and later, 64-bit Linux).
#
# Sources: the PMIx standard 4.1 and the library's pmix_common.h. Arrays that are built here keep
# alive all memory to which they point, as long as the ctypes array itself lives.

NAMESPACE_BYTES = 256
KEY_BYTES = 512
RANK_WILDCARD = 0xFFFFFFFE

# pmix_data_type_t
BOOL, STRING, INT, UINT32, STATUS, PROC, PROC_RANK = 1, 3, 6, 14, 20, 22, 40

# pmix_status_t
SUCCESS, OPERATION_SUCCEEDED = 0, -157
UNREACHABLE, LOST_CONNECTION = -25, -61
JOB_END = -145
EVENT_ACTION_COMPLETE = -334


class Proc(c.Structure):
    """pmix_proc_t"""

    _fields_ = (("nspace", c.c_char * NAMESPACE_BYTES), ("rank", c.c_uint32))


class _Data(c.Union):
    _fields_ = (
        ("flag", c.c_bool),
        ("string", c.c_char_p),
        ("integer", c.c_int),
        ("uint32", c.c_uint32),
        ("proc", c.POINTER(Proc)),
        ("_widest", c.c_void_p * 3),  # pmix_envar_t
    )


class Value(c.Structure):
    """pmix_value_t"""

    _fields_ = (("type", c.c_uint16), ("data", _Data))


class Info(c.Structure):
    """pmix_info_t"""

    _fields_ = (("key", c.c_char * KEY_BYTES), ("flags", c.c_uint32), ("value", Value))


class PmixApp(c.Structure):
    """pmix_app_t"""

    _fields_ = (
        ("cmd", c.c_char_p),
        ("argv", c.POINTER(c.c_char_p)),
        ("env", c.POINTER(c.c_char_p)),
        ("cwd", c.c_char_p),
        ("maxprocs", c.c_int),
        ("info", c.POINTER(Info)),
        ("ninfo", c.c_size_t),
    )


class Query(c.Structure):
    """pmix_query_t"""

    _fields_ = (
        ("keys", c.POINTER(c.c_char_p)),
        ("qualifiers", c.POINTER(Info)),
        ("nqual", c.c_size_t),
    )


EventDone = c.CFUNCTYPE(None, c.c_int, c.c_void_p, c.c_size_t, c.c_void_p, c.c_void_p, c.c_void_p)
OnEvent = c.CFUNCTYPE(
    None,
    *(c.c_size_t, c.c_int, c.POINTER(Proc), c.POINTER(Info), c.c_size_t),
    *(c.c_void_p, c.c_size_t, c.c_void_p, c.c_void_p),
)
OnSpawned = c.CFUNCTYPE(None, c.c_int, c.c_char_p, c.c_void_p)
Release = c.CFUNCTYPE(None, c.c_void_p)
OnInfo = c.CFUNCTYPE(None, c.c_int, c.POINTER(Info), c.c_size_t, c.c_void_p, c.c_void_p, c.c_void_p)

Setting = tuple[str, int, bool | int | str]  # key, data type, value


def info_array(settings: Sequence[Setting]) -> c.Array[Info]:
    """Build an array of pmix_info_t, with an empty element if there are no settings, as C needs
    one."""
    array = (Info * max(1, len(settings)))()
    for info, (key, kind, value) in zip(array, settings, strict=False):
        info.key = key.encode()
        info.value.type = kind
        data = info.value.data
        if isinstance(value, bool):
            data.flag = value
        elif isinstance(value, str):
            data.string = value.encode()
        elif kind in (UINT32, PROC_RANK):
            data.uint32 = value
        else:
            data.integer = value
    return array


def strings(texts: Sequence[str]) -> c.Array[c.c_char_p]:
    """Build a char ** that ends with NULL."""
    return (c.c_char_p * (len(texts) + 1))(*[text.encode() for text in texts], None)


def read(info: object, count: int) -> dict[str, bool | int | str | bytes]:
    """Read the plain values of an array of `count` pmix_info_t; a process is read as its
    namespace."""
    values: dict[str, bool | int | str | bytes] = {}
    if not info:
        return values
    for item in c.cast(info, c.POINTER(Info * count)).contents:  # type: ignore[arg-type]
        key, kind, data = item.key.decode(), item.value.type, item.value.data
        if kind == STRING:
            values[key] = (data.string or b"").decode("utf-8", "replace")
        elif kind == BOOL:
            values[key] = data.flag
        elif kind in (INT, STATUS):
            values[key] = data.integer
        elif kind == PROC and data.proc:
            values[key] = data.proc.contents.nspace.decode()
    return values


# PRTE exits if it cannot parse a mapping, so only these two are sent. `seq`: rank k goes to the
# k-th named host, regardless of the slots that PRTE counts there; the scheduler counts the slots.
MAP_RANKS = "seq:OVERSUBSCRIBE"
MAP_ANYWHERE = "slot:OVERSUBSCRIBE"


CONNECTION_LOST_CODES = (UNREACHABLE, LOST_CONNECTION)  # the DVM did not receive the request


class PmixError(Exception):
    """Refusal of a call by the library; the message has the call and the library's error string."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Tool:
    """One connection to a DVM; a process can have one. `on_spawned(key, code, namespace, message)`,
    `on_ended(namespace, code, message)` and `on_listed(namespaces)` are called on the library's
    thread and must not raise."""

    def __init__(
        self,
        uri: str,
        library: Path,
        preload: Sequence[Path],
        *,
        on_spawned: Callable[[int, int, str, str], None],
        on_ended: Callable[[str, int, str], None],
        on_listed: Callable[[list[str]], None],
    ) -> None:
        for path in preload:
            c.CDLL(str(path), mode=c.RTLD_GLOBAL)
        self._lib = c.CDLL(str(library))
        self._lib.PMIx_Error_string.restype = c.c_char_p
        # PMIx 4 lacks this function; the event of the lost connection is used in its place.
        self._is_connected = getattr(self._lib, "PMIx_tool_is_connected", None)
        if self._is_connected is not None:
            self._is_connected.restype = c.c_bool
        self._lost = False
        self._on_spawned, self._on_ended, self._on_listed = on_spawned, on_ended, on_listed
        self._in_use: dict[int, tuple[object, ...]] = {}  # memory that the library still reads
        self._count = 0
        self._spawn_callback = OnSpawned(self._spawn_done)
        self._info_callback = OnInfo(self._info_done)
        self._event_callback = OnEvent(self._event)
        self._init(uri)

    def _init(self, uri: str) -> None:
        settings: list[Setting] = [
            ("pmix.tool.nspace", STRING, f"simenv.{os.uname().nodename}.{os.getpid()}"),
            ("pmix.tool.rank", PROC_RANK, 0),
            ("pmix.srvr.uri", STRING, uri),
        ]
        own = Proc()
        count = c.c_size_t(len(settings))
        self._check(
            self._lib.PMIx_tool_init(c.byref(own), info_array(settings), count), "cannot connect"
        )
        codes = (c.c_int * 2)(JOB_END, LOST_CONNECTION)
        none = c.c_size_t(0)
        register = self._lib.PMIx_Register_event_handler
        handler = register(codes, c.c_size_t(2), None, none, self._event_callback, None, None)
        if handler < 0:
            self._check(handler, "no events")

    def connected(self) -> bool:
        return bool(self._is_connected()) if self._is_connected is not None else not self._lost

    def spawn(
        self, key: int, argv: Sequence[str], env: Sequence[str], cwd: str, hosts: Sequence[str]
    ) -> None:
        """Start a job with rank k on hosts[k]; `on_spawned` gets the result.

        `env`: "NAME=value", added to the DVM's. `cwd` must exist on every node: PRTE reports
        nothing if it does not.
        """
        placed: list[Setting] = [("pmix.host", STRING, ",".join(hosts))]
        self._spawn(key, argv, env, cwd, len(hosts), MAP_RANKS, placed)

    def add_nodes(self, key: int, hosts: Sequence[str]) -> None:
        """Add nodes ("name:slots") to the DVM, by a request in a job that ends at once.

        The job names no host of its own: PRTE hangs over a request that does both.
        """
        added: list[Setting] = [("pmix.addhost", STRING, ",".join(hosts))]
        self._spawn(key, ["/bin/sh", "-c", "sleep 0.1"], [], "/", 1, MAP_ANYWHERE, added)

    def kill(self, namespace: str) -> None:
        """Send SIGTERM to every rank of a job, and SIGKILL a second later. Other signals cannot be
        sent: PRTE delivers them to the ranks of all jobs."""
        target = Proc()
        target.nspace, target.rank = namespace.encode(), RANK_WILDCARD
        directive = info_array([("pmix.jctrl.kill", BOOL, True)])
        single = c.c_size_t(1)
        key = self._hold(target, directive)
        control = self._lib.PMIx_Job_control_nb
        self._check(
            control(
                c.byref(target), single, directive, single, self._info_callback, c.c_void_p(key)
            ),
            "not killed",
        )

    def query(self) -> None:
        """Request the live namespaces; `on_listed` gets them."""
        query = (Query * 1)()
        keys = strings(["pmix.qry.ns"])
        query[0].keys = keys
        key = self._hold(query, keys)
        query_info = self._lib.PMIx_Query_info_nb
        self._check(
            query_info(query, c.c_size_t(1), self._info_callback, c.c_void_p(key)), "no answer"
        )

    def _spawn(
        self,
        key: int,
        argv: Sequence[str],
        env: Sequence[str],
        cwd: str,
        ranks: int,
        map_by: str,
        settings: list[Setting],
    ) -> None:
        if not self.connected():
            raise PmixError("the connection to the DVM is lost", LOST_CONNECTION)
        job: list[Setting] = [
            ("pmix.pers", STRING, "ompi"),
            ("pmix.notecomp", BOOL, True),
            ("pmix.note.jev", BOOL, True),
            ("pmix.mapby", STRING, map_by),
            ("pmix.bindto", STRING, "none"),
        ]
        jobs, infos = info_array(job), info_array(settings)
        arguments, variables = strings(argv), strings(env)
        apps = (PmixApp * 1)()
        app = apps[0]
        app.cmd, app.argv, app.env, app.cwd = argv[0].encode(), arguments, variables, cwd.encode()
        app.maxprocs, app.info, app.ninfo = ranks, infos, len(settings)
        held = self._hold(key, jobs, infos, arguments, variables, apps)
        code = self._lib.PMIx_Spawn_nb(
            jobs, c.c_size_t(len(job)), apps, c.c_size_t(1), self._spawn_callback, c.c_void_p(held)
        )
        self._check(code, "not started")

    def _hold(self, *objects: object) -> int:
        """Keep memory alive until the callback that gets the returned number."""
        self._count += 1
        self._in_use[self._count] = objects
        return self._count

    def _check(self, code: int, failure: str) -> None:
        if code not in (SUCCESS, OPERATION_SUCCEEDED):
            raise PmixError(f"{failure}: {self._error_string(code)}", code)

    def _error_string(self, code: int) -> str:
        text: bytes = self._lib.PMIx_Error_string(code) or b""
        return f"{text.decode()} ({code})"

    # --- on the library's thread -----------------------------------------------------------------

    def _spawn_done(self, code: int, namespace: bytes | None, held: int) -> None:
        key = self._in_use.pop(held)[0]
        assert isinstance(key, int)
        good = code in (SUCCESS, OPERATION_SUCCEEDED)
        message = "" if good else self._error_string(code)
        self._on_spawned(key, 0 if good else code, (namespace or b"").decode(), message)

    def _info_done(
        self, code: int, info: object, count: int, held: int, release: int, release_data: int
    ) -> None:
        self._in_use.pop(held, None)
        names = read(info, count).get("pmix.qry.ns") if code == SUCCESS else None
        if release:
            Release(release)(release_data)
        if isinstance(names, str):
            self._on_listed([name for name in names.split(",") if name])

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
            if status == LOST_CONNECTION:
                self._lost = True
                return
            values = read(info, count)
            namespace = values.get("pmix.evproc")
            code = int(values.get("pmix.job.term.status", 0))
            if isinstance(namespace, str):
                self._on_ended(namespace, code, "" if code >= 0 else self._error_string(code))
        finally:
            if done:
                EventDone(done)(EVENT_ACTION_COMPLETE, None, 0, None, None, data)
