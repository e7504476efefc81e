"""Credentials of MUNGE, which prove a user between the nodes of a site.

`munged` of the node encrypts a payload with the site's key and adds the user id of the process that
asked; the other node's `munged` decrypts it, once. Source: munge(7), munge.h. Invariant: only the
user named in `reader_uid` can decode a credential; a foreign error is raised as a SimenvError.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from simenv.errors import ConfigError, KeyRefusedError, NoServiceError

PREFIX = b"MUNGE:"
TTL_S = 60  # of a credential, its age in any case
SOCKET = Path("/run/munge/munge.socket.2")  # munged(8)
_LIBRARY = "libmunge.so.2"
# munge_opt_t and munge_err_t of munge.h
_TTL, _ENCODED_S, _DECODED_S, _SOCKET, _READER = 4, 6, 7, 8, 9
_SUCCESS, _CANNOT_CONNECT, _TIMEOUT, _REPLAYED = 0, 6, 7, 17
_NOT_REACHED = (_CANNOT_CONNECT, _TIMEOUT)


class Credential(msgspec.Struct, frozen=True):
    """Contents of a credential. `uid`: of the process that asked for it."""

    payload: bytes
    uid: int


def socket_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Path of the socket of munged: SIMENV_MUNGE_SOCKET, else that of Debian's package."""
    return Path(environ.get("SIMENV_MUNGE_SOCKET") or SOCKET)


@functools.cache
def _library() -> Any:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        hint = "on Debian: apt-get install munge; munged needs the site's key"
        raise ConfigError(f"MUNGE is not installed here: {error}", hint=hint) from error
    pointer = ctypes.c_void_p
    library.munge_ctx_create.restype = pointer
    library.munge_ctx_destroy.argtypes = [pointer]
    library.munge_ctx_set.argtypes = [pointer, ctypes.c_int]
    library.munge_ctx_get.argtypes = [pointer, ctypes.c_int, pointer]
    library.munge_encode.argtypes = [pointer, pointer, ctypes.c_char_p, ctypes.c_int]
    library.munge_decode.argtypes = [ctypes.c_char_p, *[pointer] * 5]
    library.munge_strerror.restype = ctypes.c_char_p
    return library


@functools.cache
def _free() -> Any:
    """Return the function that frees what the library has allocated."""
    free = ctypes.CDLL(None).free
    free.argtypes, free.restype = [ctypes.c_void_p], None
    return free


class _Context:
    """One munge_ctx_t, with the socket of munged set."""

    def __enter__(self) -> _Context:
        path = socket_path()
        if not path.is_socket():  # the library would wait for it for seconds
            hint = "is munged running? SIMENV_MUNGE_SOCKET names another socket"
            raise NoServiceError(f"there is no socket of munged at {path}", hint=hint)
        self.library = _library()
        self.pointer = self.library.munge_ctx_create()
        if not self.pointer:
            raise MemoryError("munge_ctx_create")
        self.set(_SOCKET, ctypes.c_char_p(os.fsencode(path)))
        return self

    def __exit__(self, *_: object) -> None:
        self.library.munge_ctx_destroy(self.pointer)

    def set(self, option: int, value: Any) -> None:
        self.check(self.library.munge_ctx_set(self.pointer, option, value))

    def seconds(self, option: int) -> int:
        value = ctypes.c_long()
        self.check(self.library.munge_ctx_get(self.pointer, option, ctypes.byref(value)))
        return value.value

    def check(self, code: int) -> None:
        """Raise the error of a munge_err_t."""
        if code == _SUCCESS:
            return
        reason = self.library.munge_strerror(code).decode(errors="replace")
        if code in _NOT_REACHED:
            raise NoServiceError(f"munged does not answer: {reason}", hint="is munged running?")
        hint = "ask for a new one" if code == _REPLAYED else "has the site one key, and one time?"
        raise KeyRefusedError(f"MUNGE refuses the credential: {reason}", hint=hint)


def encode(payload: bytes, reader_uid: int) -> bytes:
    """Return a credential of this process's user, which only `reader_uid` can decode. Raises
    ConfigError, NoServiceError."""
    text = ctypes.c_void_p()
    with _Context() as context:
        context.set(_TTL, ctypes.c_int(TTL_S))
        context.set(_READER, ctypes.c_uint32(reader_uid))
        library = context.library
        arguments = (ctypes.byref(text), context.pointer, payload, len(payload))
        context.check(library.munge_encode(*arguments))
        try:
            return ctypes.string_at(text)
        finally:
            _free()(text)


def decode(credential: bytes) -> Credential:
    """Decode a credential, which can be done once. Raises KeyRefusedError for one that is forged,
    was decoded before, is older than TTL_S or is for another user; ConfigError, NoServiceError."""
    if not credential.startswith(PREFIX) or b"\0" in credential:
        raise KeyRefusedError("this is no credential of MUNGE")
    body, size = ctypes.c_void_p(), ctypes.c_int()
    uid, gid = ctypes.c_uint32(), ctypes.c_uint32()
    with _Context() as context:
        library = context.library
        places = [ctypes.byref(each) for each in (body, size, uid, gid)]
        code = library.munge_decode(credential, context.pointer, *places)
        try:
            context.check(code)
            payload = ctypes.string_at(body, size.value) if size.value else b""
        finally:
            _free()(body)
        age_s = context.seconds(_DECODED_S) - context.seconds(_ENCODED_S)
    if age_s > TTL_S:  # its sender chose a longer time
        raise KeyRefusedError(f"MUNGE: the credential is {age_s} s old, the limit is {TTL_S} s")
    return Credential(payload, uid.value)
