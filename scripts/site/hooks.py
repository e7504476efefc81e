"""MkDocs hooks: pages generated from code, and files of the repository that pages link to."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import notebooks
from cli_reference import cli_page
from configuration_reference import configuration_page
from error_reference import error_page
from http_reference import http_page
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PROJECT_PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
LICENSE_FILE = "LICENSE"
# Figures, which would be found in place of the guides.
NOT_SEARCHED = (
    "concepts/fit_limits.md",
    "concepts/latency.md",
    "performance.md",
    "project/CHANGELOG.md",
    "reference/scale.md",
)
# Links to files outside of docs/: written for a checkout, rewritten for the site.
_REPOSITORY_LINK = re.compile(r"\]\((?:\.\./)+(examples/[^)]*|[A-Z]+(?:\.md)?)\)")
_PROJECT_LINK = re.compile(r"\]\((docs/[^)]*|README\.md|[A-Z]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add generated reference pages, pages of the repository's root, and linked examples."""
    sys.path.insert(0, str(ROOT))  # for `bench`, which is not installed
    sys.path.insert(0, str(ROOT / "scripts"))
    import support_table

    from bench.figures import performance_tables

    generated = {
        "reference/cli.md": cli_page(),
        "reference/configuration.md": configuration_page(),
        "reference/errors.md": error_page(),
        "reference/http.md": http_page(),
        **notebooks.pages(),
    }
    for name in PROJECT_PAGES:
        generated[f"project/{name}"] = _project_page((ROOT / name).read_text())
    for path, content in generated.items():
        files.append(File.generated(config, path, content=content))
    for name, mark, text in (
        ("performance.md", "<!-- tables -->", performance_tables()),
        ("reference/support.md", "<!-- support -->", support_table.table()),
    ):
        page = files.get_file_from_path(name)
        assert page is not None
        page.content_string = page.content_string.replace(mark, text)
    for path in _linked_examples(files):
        files.append(File.generated(config, f"project/{path}", abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: object) -> str:
    """Point links to files of the repository to their copies in the site, and leave pages of
    figures out of the search."""
    if page.file.src_uri in NOT_SEARCHED:
        page.meta["search"] = {"exclude": True}
    up = "../" * page.file.src_uri.count("/")
    return _REPOSITORY_LINK.sub(lambda match: f"]({up}project/{_target(match[1])})", markdown)


def _target(path: str) -> str:
    """Return the page or file that stands for a path; a folder's is its first file."""
    return str(next(iter(_expanded(path)))) if path.startswith("examples/") else path


def _expanded(path: str) -> list[str]:
    """Return the files of a path of the repository: itself, or those in the folder."""
    folder = ROOT / path
    if not folder.is_dir():
        return [path]
    inside = sorted(file for file in folder.iterdir() if file.is_file())
    return [str(file.relative_to(ROOT)) for file in inside]


def _linked_examples(files: Files) -> list[str]:
    """Return the files below examples/ that any page links to, and the licence."""
    linked = {
        path
        for file in files.documentation_pages()
        for link in _REPOSITORY_LINK.findall(file.content_string)
        for path in (_expanded(link) if link.startswith("examples/") else ())
    }
    return [*sorted(linked), LICENSE_FILE]


def _project_page(text: str) -> str:
    """Rewrite links of a file of the root, which is a page in the folder `project` of the site."""

    def rewritten(match: re.Match[str]) -> str:
        target = match[1]
        if target.startswith("docs/"):
            return f"](../{target.removeprefix('docs/')})"
        return "](../index.md)" if target == "README.md" else f"]({target})"

    return _PROJECT_LINK.sub(rewritten, text)
