"""Files of the web page: one HTML document for all views, and static files named by their digest.

Invariant: nothing is served but what was read at the start, so no path reaches the file system; no
document has data of a user, so files need no token. The policy of content admits this origin alone:
no script or style inside a document, no frame, nothing from elsewhere.
"""

from __future__ import annotations

import gzip
import hashlib
from html import escape
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from litestar import Request, Response, get
from litestar.params import FromPath
from litestar.response import Redirect
from litestar.types import ControllerRouterHandler

from simenv.errors import NotFoundError
from simenv.gateway.context import Gateway
from simenv.gateway.limits import GZIP_BYTES, packed_response

ROOT = "/ui"
# Title of each view, by the first segment of its path; a name may follow that of the view.
VIEWS = {
    "": ("Overview", "overview"),
    "run": ("Run a circuit", "run"),
    "tasks": ("Tasks", "tasks"),
    "devices": ("Devices", "devices"),
    "nodes": ("Nodes and workers", "nodes"),
    "usage": ("Usage and shares", "usage"),
    "events": ("Events", "events"),
}
ONE_TASK = ("Task", "task")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_KINDS = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}
_FOREVER = "public, max-age=31536000, immutable"


class Site:
    """The files in memory. `digest`: of all of them; it is in their paths, so that browsers may
    keep them."""

    def __init__(self, environment: str) -> None:
        folder = resources.files(__package__) / "static"
        found = dict(sorted(_read(folder, "").items()))
        self.digest = hashlib.sha256(b"".join(found.values())).hexdigest()[:16]
        self._document = found.pop("index.html").decode()
        self._environment = environment
        self._files = found
        self._packed = {
            name: gzip.compress(body, mtime=0)
            for name, body in found.items()
            if len(body) >= GZIP_BYTES
        }

    def packed(self, name: str) -> bytes:
        """Return the content of a file, compressed by gzip; b"" of a small file."""
        return self._packed.get(name, b"")

    def file(self, name: str) -> tuple[str, bytes]:
        """Return the media type and the content of a file. Raises NotFoundError."""
        if name not in self._files:
            raise NotFoundError(f"the page has no file {name[:80]!r}", hint=f"{ROOT}/ is the page")
        return _KINDS["." + name.rpartition(".")[2]], self._files[name]

    def document(self, path: str) -> str:
        """Return the HTML document of a path below ROOT. Raises NotFoundError."""
        view, _, subject = path.strip("/").partition("/")
        if view not in VIEWS or "/" in subject or (subject and view not in ("tasks", "devices")):
            views = ", ".join(f"{ROOT}/{name}" for name in VIEWS)
            raise NotFoundError(f"the page has no view {path[:80]!r}", hint=f"there are: {views}")
        title, module = ONE_TASK if subject and view == "tasks" else VIEWS[view]
        values = {"title": title, "view": module, "static": f"{ROOT}/static/{self.digest}"}
        text = self._document
        for name, value in {**values, "environment": self._environment}.items():
            text = text.replace(f"{{{name}}}", escape(value))
        return text


def _read(folder: Traversable, prefix: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for item in folder.iterdir():
        if item.is_dir():
            found |= _read(item, f"{prefix}{item.name}/")
        elif "." + item.name.rpartition(".")[2] in _KINDS:
            found[prefix + item.name] = item.read_bytes()
    return found


def routes(gateway: Gateway) -> list[ControllerRouterHandler]:
    """Return the handlers of documents and static files. They need no token."""
    site = Site(gateway.environment)

    @get("/", include_in_schema=False)
    async def root() -> Redirect:
        return Redirect(f"{ROOT}/")

    @get([ROOT, f"{ROOT}/{{path:path}}"], include_in_schema=False)
    async def document(path: FromPath[str] = "") -> Response[str]:
        headers = {**HEADERS, "Cache-Control": "no-cache"}
        return Response(site.document(path), media_type=_KINDS[".html"], headers=headers)

    @get(f"{ROOT}/static/{{digest:str}}/{{name:path}}", include_in_schema=False)
    async def static(
        request: Request[Any, Any, Any], digest: FromPath[str], name: FromPath[str]
    ) -> Response[bytes]:
        name = name.lstrip("/")
        kind, body = site.file(name)
        # A page that was loaded before an upgrade asks for files of its own digest.
        headers = {**HEADERS, "Cache-Control": _FOREVER if digest == site.digest else "no-store"}
        return packed_response(request, body, site.packed(name), kind, headers)

    return [root, document, static]
