"""`simenv help`: the help of a command, and manual pages of all commands.

Help and manual pages come from the same tree of commands, with the examples of
`simenv.cli.command_examples`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from simenv._version import __version__
from simenv.cli import app, terminal
from simenv.cli.command_examples import EXAMPLES
from simenv.config import nearest
from simenv.errors import OptionError

MAN = "man"
_EXIT_STATUS = (
    ("0", "Success."),
    ("1", "A task or a check failed."),
    ("2", "The command line, a circuit or a setting is not valid."),
    ("3", "The environment refuses the request, or can never serve it."),
    ("4", "No task, pool, worker, device or file has that name."),
    ("5", "No environment could be reached."),
    ("124", "The time of --timeout has passed; the task goes on."),
    ("130", "Interrupted."),
)


def help(  # noqa: A001 - the name of the command
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[COMMAND...]", help="Words of a command; or man FOLDER."),
    ] = None,
) -> None:
    """Show the help of a command; `simenv help man FOLDER` writes manual pages of all.

    The pages, one a command, are for `man`: FOLDER is often share/man/man1 of an installation.
    """
    root = context.find_root()
    tree = app.command_line()
    if not words:
        terminal.line(_context(tree, root.info_name).get_help())
    elif words[0] == MAN:
        if len(words) != 2:
            raise OptionError("help man needs one folder", hint="simenv help man FOLDER")
        folder = Path(words[1])
        with terminal.write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            count = 0
            for path, page in pages(tree):
                (folder / f"{'-'.join(('simenv', *path))}.1").write_text(page)
                count += 1
        app.settings_of(context).answer(
            {"folder": str(folder), "pages": count},
            [f"{count} pages in {folder}; the first: man -l {folder / 'simenv.1'}"],
        )
    else:
        terminal.line(_found(tree, root.info_name, words).get_help())


def _context(command: Any, name: str | None, parent: Any = None) -> Any:
    return command.make_context(name, [], parent=parent, resilient_parsing=True)


def _found(tree: Any, name: str | None, words: Sequence[str]) -> Any:
    """Return the context of the command of these words. Raises OptionError."""
    found = _context(tree, name)
    for word in words:
        commands = getattr(found.command, "commands", {})
        if word not in commands:
            hint = nearest(word, commands) if commands else f"see: {found.command_path} --help"
            raise OptionError(f"{found.command_path} has no command {word[:64]!r}", hint=hint)
        found = _context(commands[word], word, found)
    return found


def pages(tree: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the words of each command, none for `simenv` itself, and its manual page as roff."""
    root = _context(tree, "simenv")
    common = [record for each in tree.params if (record := each.get_help_record(root))]
    for path, found in _walked(root, ()):
        yield path, _page(path, found, common)


def _walked(found: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, found
    for name, command in getattr(found.command, "commands", {}).items():
        yield from _walked(_context(command, name, found), (*path, name))


def _page(path: tuple[str, ...], found: Any, common: Sequence[tuple[str, str]]) -> str:
    name = "-".join(("simenv", *path))
    command = found.command
    summary, *paragraphs = (command.help or "").split("\n\n")
    usage = " ".join(command.collect_usage_pieces(found))
    lines = [
        f'.TH {name.upper()} 1 "" "simenv {__version__}" "simenv"',
        *(".SH NAME", f"{_roff(name)} \\- {_roff(command.short_help or summary).rstrip('.')}"),
        *(".SH SYNOPSIS", f".B {_roff(found.command_path)}", _roff(usage)),
        *(".SH DESCRIPTION", _roff(summary)),
    ]
    for paragraph in paragraphs:
        lines += [".PP", _roff(paragraph)]
    records = {"argument": list[Any](), "option": list[Any]()}
    for each in command.get_params(found):
        if record := each.get_help_record(found):
            records[each.param_type_name].append(record)
    lines += _items("ARGUMENTS", records["argument"])
    lines += _items("OPTIONS", records["option"])
    if path:
        lines += _items("OPTIONS OF ALL COMMANDS", common)
    commands = getattr(command, "commands", {})
    lines += _items("COMMANDS", [(each, sub.short_help) for each, sub in commands.items()])
    if examples := EXAMPLES.get(" ".join(path)):
        lines += [".SH EXAMPLES"]
        lines += [_roff(f"With {examples.needs}:"), ".PP"] if examples.needs else []
        lines += [".nf", *map(_roff, examples.lines), ".fi"]
    lines += _items("EXIT STATUS", _EXIT_STATUS)
    others = [("simenv", *path[:-1])] if path else [("simenv", each) for each in commands]
    lines += [".SH SEE ALSO", ", ".join(f"{_roff('-'.join(each))}(1)" for each in others)]
    return "\n".join(lines) + "\n"


def _items(title: str, records: Sequence[tuple[str, str]]) -> list[str]:
    lines = [f".SH {title}"] if records else []
    for term, text in records:
        lines += [".TP", f"\\fB{_roff(term)}\\fR", _roff(text)]
    return lines


def _roff(text: str) -> str:
    """Return the text with what roff would interpret escaped."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"(?m)^(?=[.'])", r"\\&", text)
