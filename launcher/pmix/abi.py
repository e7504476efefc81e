"""Struct layouts, data types and status codes of the PMIx ABI (version 4 and later, 64-bit Linux).

Sources: the PMIx standard 4.1 and the library's pmix_common.h. Arrays that are built here keep
alive all memory to which they point, as long as the ctypes array itself lives.
"""

from __future__ import annotations

import ctypes as c
from collections.abc import Sequence

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


def infos(settings: Sequence[Setting]) -> c.Array[Info]:
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
