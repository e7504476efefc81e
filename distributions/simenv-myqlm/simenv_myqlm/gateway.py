"""Requests to the gateway of an environment, with the standard library alone.

Invariants: the token is sent to the given address alone, over TLS whose certificate is checked, or
on the loopback interface; it stands in no exception and no representation. A request is repeated
only if that cannot run anything twice: a reading one, or one with an idempotency key. Answers are
read up to MAX_ANSWER_BYTES.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import ssl
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from simenv_myqlm.errors import ConfigError, GatewayError, NoGatewayError

PREFIX = "/api/v1"
MAX_ANSWER_BYTES = 64 * 2**20
MAX_TOKEN_BYTES = 8_192
REQUEST_S = 90.0  # of one request; the gateway waits at most 60 s for a result
RETRY_S = 60.0  # for which a gateway that does not answer, or is busy, is asked again
_LONGEST_PAUSE_S = 5.0
_PART_BYTES = 2**20  # of an answer, read at once
_BUSY = (408, 425, 429, 502, 503, 504)
_ENV = 'eval "$(simenv gateway env)" sets SIMENV_URL, SIMENV_TOKEN and SSL_CERT_FILE'
_AUTHORITIES = ("SSL_CERT_FILE", "CURL_CA_BUNDLE")  # as the command prints them


class GatewayConnection:
    """Connections to one gateway, one for each request under way; they stay open until `close`.

    `url`: without a path; default SIMENV_URL. `token`: default that of `token_file`, else
    SIMENV_TOKEN. `ca_file`: certificates of the authority; default SSL_CERT_FILE or CURL_CA_BUNDLE,
    else those of the system. Raises ConfigError."""

    def __init__(
        self, url: str | None = None, token: str | None = None, *,
        token_file: str | os.PathLike[str] | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        request_s: float = REQUEST_S, retry_s: float = RETRY_S,
    ) -> None:  # fmt: skip
        self.url = url or os.environ.get("SIMENV_URL", "")
        self._host, self._port, self._is_tls = _parsed(self.url)
        self._token = _checked(token or _read(token_file) or os.environ.get("SIMENV_TOKEN", ""))
        self._request_s, self._retry_s = request_s, retry_s
        self._tls = _context(ca_file) if self._is_tls else None
        self._lock, self._idle = threading.Lock(), list[http.client.HTTPConnection]()

    def close(self) -> None:
        """Close the connections that are not in use; later requests open new ones."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def __repr__(self) -> str:
        return f"GatewayConnection({self.url!r})"

    def request(self, method: str, path: str, body: Any = None, key: str = "") -> tuple[int, Any]:
        """Send a request; return status, which is below 300, and JSON of its answer. `path`: below
        /api/v1; `key`: idempotency key, without which only GET is repeated. Raises GatewayError,
        NoGatewayError."""
        data = None if body is None else _encoded(body)
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}
        if data is not None:
            headers["Content-Type"] = "application/json"
        if key:
            headers["Idempotency-Key"] = key
        may_repeat = bool(key) or method == "GET"
        end_s, pause_s = time.monotonic() + self._retry_s, 0.0  # idle connections may have ended
        while True:
            try:
                status, retry_after_s, text = self._exchange(method, PREFIX + path, data, headers)
            except ssl.SSLCertVerificationError as error:
                hint = f"ca_file= names the environment's authority; {_ENV}"
                raise NoGatewayError(
                    f"the certificate of {self.url} is not trusted: {error.verify_message}", hint
                ) from None
            except (OSError, http.client.HTTPException) as error:
                self.close()  # those to a gateway that has ended
                reason = f"{type(error).__name__}: {error}"[:200]
                if not may_repeat or time.monotonic() + pause_s > end_s:
                    hint = "simenv gateway status says where it is"
                    raise NoGatewayError(f"no answer from {self.url}: {reason}", hint) from None
                retry_after_s = 0.0
            else:
                if status < 300:
                    return status, _decoded(text)
                if status not in _BUSY or not may_repeat or time.monotonic() + pause_s > end_s:
                    raise _problem(status, text)
            time.sleep(min(max(pause_s, retry_after_s), _LONGEST_PAUSE_S))
            pause_s = min(max(0.05, 2 * pause_s), _LONGEST_PAUSE_S)

    def _exchange(
        self, method: str, path: str, data: bytes | None, headers: dict[str, str]
    ) -> tuple[int, float, bytes]:
        """Return status, Retry-After in seconds and body of one answer."""
        with self._lock:
            connection = self._idle.pop() if self._idle else self._opened()
        try:
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            text = self._body(answer)
        except BaseException:
            connection.close()
            raise
        if len(text) > MAX_ANSWER_BYTES:
            connection.close()
            hint = "fewer measured qubits, or shots with aggregate_data=True"
            raise GatewayError(f"an answer above {MAX_ANSWER_BYTES} bytes", hint)
        with self._lock:
            self._idle.append(connection)
        wait = answer.getheader("Retry-After", "")
        return answer.status, float(wait) if wait.isdigit() else 0.0, text

    def _body(self, answer: http.client.HTTPResponse) -> bytes:
        """Return the body, or more than MAX_ANSWER_BYTES of it. Raises TimeoutError: the timeout of
        a socket is that of each of its packets."""
        end_s, parts, left = time.monotonic() + self._request_s, [], MAX_ANSWER_BYTES + 1
        while left > 0 and (part := answer.read1(min(left, _PART_BYTES))):
            parts.append(part)
            left -= len(part)
            if time.monotonic() > end_s:
                raise TimeoutError(f"an answer took more than {self._request_s} s")
        if left > 0 and answer.length:  # of the bytes that its head announced
            raise http.client.IncompleteRead(b"", answer.length)
        answer.close()  # the connection may have its next request
        return b"".join(parts)

    def _opened(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return _Connection(self._host, self._port, timeout=self._request_s)
        return _TlsConnection(self._host, self._port, timeout=self._request_s, context=self._tls)


class _OneWrite(http.client.HTTPConnection):
    """Sends head and body of a request together: two packets would wake the gateway twice."""

    def request(self, *words: Any, **named: Any) -> None:
        self._parts: list[bytes] | None = []
        super().request(*words, **named)
        parts, self._parts = self._parts, None
        super().send(b"".join(parts or ()))

    def send(self, data: Any) -> None:
        if self._parts is None:
            super().send(data)
        else:
            self._parts.append(data)


class _Connection(_OneWrite):
    """Over plain TCP."""


class _TlsConnection(_OneWrite, http.client.HTTPSConnection):
    """Over TLS."""


def _parsed(url: str) -> tuple[str, int, bool]:
    """Return host, port and whether it is TLS. Raises ConfigError."""
    if not url:
        raise ConfigError("there is no address of a gateway", f"url=, or {_ENV}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
        raise ConfigError(
            "the url of the gateway cannot be used", "https://HOST:PORT, without a path"
        )
    if parts.username or parts.query or parts.fragment:
        raise ConfigError(
            "the url of the gateway holds more than host and port", "token= is its own"
        )
    is_tls = parts.scheme == "https"
    if not is_tls and not _is_loopback(parts.hostname):
        hint = "https://, or an address of this machine: the token must not travel unencrypted"
        raise ConfigError(f"{url[:200]} is not encrypted", hint)
    return parts.hostname, port or (443 if is_tls else 80), is_tls


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read(file: str | os.PathLike[str] | None) -> str:
    if file is None:
        return ""
    try:
        with Path(file).open("rb") as opened:
            return opened.read(MAX_TOKEN_BYTES + 1).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"token_file cannot be read: {type(error).__name__}") from None


def _checked(token: str) -> str:
    """Return the token if a header can carry it. Raises ConfigError without showing it."""
    if not token:
        raise ConfigError("there is no token", f"token=, token_file=, or {_ENV}")
    if len(token) > MAX_TOKEN_BYTES or not all("!" <= each <= "~" for each in token):
        raise ConfigError("the token is too long or has characters that no token has", _ENV)
    return token


def _context(ca_file: str | os.PathLike[str] | None) -> ssl.SSLContext:
    given = ca_file or next(filter(None, map(os.environ.get, _AUTHORITIES)), None)
    try:
        return ssl.create_default_context(cafile=given)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"the certificates {given} cannot be read: {error}", "ca_file=") from None


def _encoded(body: Any) -> bytes:
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        hint = "options are numbers, texts, lists and dictionaries of them"
        raise ConfigError(f"a request that JSON cannot hold: {error}", hint) from None


def _decoded(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # nested too deep
        raise GatewayError("an answer that is no JSON", "does url= name a gateway?") from None


def _problem(status: int, text: bytes) -> GatewayError:
    """Return the exception of a problem document (RFC 9457)."""
    try:
        found = json.loads(text)
        detail, hint, code = (str(found.get(key, ""))[:2_000] for key in ("detail", "hint", "code"))
    except (ValueError, AttributeError, RecursionError):
        detail, hint, code = "", "", ""
    return GatewayError(detail or f"the gateway answered {status}", hint, code, status)
