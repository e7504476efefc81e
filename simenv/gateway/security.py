"""Credentials of HTTP requests.

Every credential stands for a bearer token of the service: the token itself, a JWT of this gateway
that holds it encrypted, or the cookie of a browser: a token of that browser alone, made by a
one-time link or by the token that its user has typed, and revoked when it signs out. The gateway
stores none of them. Invariants: a request without a valid credential reaches no handler of an API;
a cookie alone changes nothing, unless the request comes from a page of this gateway.
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Any

from joserfc import jwe, jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from litestar import Request

from simenv import files
from simenv.errors import ConfigError, KeyRefusedError, NotAllowedError
from simenv.gateway.context import AccessToken

SECRET_BYTES = 32
JWT_S = 3_600.0  # lifetime of a JWT
BROWSER_S = 12 * 3_600.0  # lifetime of a browser's session
LINK_S = 600.0  # lifetime of a one-time link
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_CLAIM = "token"  # of a JWT: the bearer token, encrypted
_NO_CREDENTIALS = "send `Authorization: Bearer TOKEN`; simenv gateway tokens add makes a token"


class Signer:
    """Makes and reads JWTs. Its secret is in the gateway's folder, so that they outlive a
    restart."""

    def __init__(self, folder: Path) -> None:
        """Read the secret; the first call creates it. Raises ConfigError."""
        path = folder / "secret"
        try:
            if not path.exists():
                files.create_private(path, secrets.token_bytes(2 * SECRET_BYTES))
            body = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"cannot use {path}: {error.strerror}") from error
        if len(body) != 2 * SECRET_BYTES:
            raise ConfigError(f"{path} is damaged", hint="remove it: clients get new JWTs")
        self._signing = OctKey.import_key(body[:SECRET_BYTES])
        self._sealing = OctKey.import_key(body[SECRET_BYTES:])

    def access_token(self, secret: str) -> AccessToken:
        """Return a JWT that stands for a bearer token."""
        now_s = int(time.time())
        sealed = jwe.encrypt_compact({"alg": "dir", "enc": "A256GCM"}, secret, self._sealing)
        expires_s = now_s + int(JWT_S)
        claims = {"iat": now_s, "exp": expires_s, _CLAIM: sealed}
        return AccessToken(jwt.encode({"alg": "HS256"}, claims, self._signing), now_s, expires_s)

    def secret_of(self, text: str) -> str:
        """Return the bearer token in a JWT. Raises KeyRefusedError for one that this gateway did
        not make, or that has expired."""
        try:
            claims = jwt.decode(text, self._signing, algorithms=["HS256"]).claims
            jwt.JWTClaimsRegistry(exp={"essential": True}).validate(claims)
            sealed = jwe.decrypt_compact(
                str(claims[_CLAIM]), self._sealing, algorithms=["dir", "A256GCM"]
            )
        except (JoseError, ValueError, KeyError) as error:
            text = "the access token was not made by this gateway, or has expired"
            hint = "get a new one: POST /identity/token"
            raise KeyRefusedError(text, hint=hint) from error
        return (sealed.plaintext or b"").decode()


def cookie_name(environment: str, is_secure: bool) -> str:
    """Return the name of the cookie. Browsers send cookies to all ports of a host: it names the
    environment."""
    return f"{'__Host-' if is_secure else ''}simenv-{environment}"


def credential(request: Request[Any, Any, Any], cookie: str, signer: Signer) -> str:
    """Return the bearer token of a request. `cookie`: name of the cookie. Raises KeyRefusedError
    without a credential, NotAllowedError for a change that another site's page requests."""
    header = request.headers.get("authorization", "")
    if header:
        scheme, _, value = header.partition(" ")
        value = value.strip()
        if scheme.lower() not in ("bearer", "apikey") or not value:
            raise KeyRefusedError(f"Authorization: {scheme[:16]} ...", hint=_NO_CREDENTIALS)
        return value if is_bearer_token(value) else signer.secret_of(value)
    value = request.cookies.get(cookie, "")
    if not value:
        raise KeyRefusedError("the request has no credential", hint=_NO_CREDENTIALS)
    if request.method not in SAFE_METHODS:
        check_same_origin(request)
    return value


def is_bearer_token(value: str) -> bool:
    """Return whether a credential is a token of the service and no JWT."""
    return value.count(".") != 2


def check_same_origin(request: Request[Any, Any, Any]) -> None:
    """Check that a request with a cookie comes from a page of this gateway. Raises
    NotAllowedError."""
    url = request.base_url
    if request.headers.get("origin", "") != f"{url.scheme}://{url.netloc}":
        raise NotAllowedError(
            "a page of another site requests a change with the cookie of this one",
            hint="browsers send Origin; other programs use `Authorization: Bearer TOKEN`",
        )
