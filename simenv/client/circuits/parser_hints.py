"""Ways out of what the parsers of OpenQASM refuse: unknown names, and missing semicolons.

Pure: the parser's message and the text in, a hint out; "" where the message says enough.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches
from itertools import islice

from simenv.client.circuits.text_checks import SourceText

MAX_NAMES = 1_000  # of a text, that are compared with a name
MAX_NAME = 40  # characters of a name that is compared, or written

# stdgates.inc of the specification of OpenQASM 3.
STDGATES = frozenset(
    {
        *("p", "x", "y", "z", "h", "s", "sdg", "t", "tdg", "sx", "rx", "ry", "rz", "id"),
        *("cx", "cy", "cz", "cp", "crx", "cry", "crz", "ch", "swap", "ccx", "cswap", "cu"),
        *("CX", "phase", "cphase", "u1", "u2", "u3"),
    }
)
_OTHER_NAMES = {
    "cnot": "cx", "toffoli": "ccx", "ccnot": "ccx", "fredkin": "cswap", "hadamard": "h", "i": "id",
    "phase": "p", "cphase": "cp",
}  # fmt: skip
_OTHER_NAMES_3 = {"cu1": "cp", "u": "U", "sxdg": "inv @ sx", "csx": "ctrl @ sx"}
_UNKNOWN = re.compile(
    r"(?:cannot use non-builtin custom instruction |gate |Undefined symbol )?'(\w+)'"
    r"(?: before definition| is not (?:defined|a parameter)|\.)"
)
_DECLARED = re.compile(
    r"\b(?:[qc]reg|(?:qubit|bit)(?:\s*\[[^\]]{0,40}\])?|input\s+\w+(?:\s*\[[^\]]{0,40}\])?)\s+(\w+)"
)
_DEFINED = re.compile(r"\b(?:gate|opaque)\s+(\w+)")
_STRING = re.compile(r"\"[^\"\n]*\"|'[^'\n]*'")
_NO_END = re.compile(r"(?:needed|missing) ';'")
_CAPITAL = "identifiers cannot start with capital letters"


def hint(
    source: SourceText, message: str, gates: Collection[str], elsewhere: Collection[str] = ()
) -> str:
    """Return the way out of a parser's message, without its place. `gates`: those of the file that
    programs of this version include; `elsewhere`: those of another version's."""
    if _NO_END.match(message):
        return "a statement ends with ';': the one before this place has none"
    if message.startswith(_CAPITAL):
        return "write gates and registers in lower case, such as cx"
    found = _UNKNOWN.match(message)
    if found is None:
        return ""
    name = found[1]
    code = _STRING.sub(" ", source.text)  # its comments are blank already
    if "parameter" in message or not _is_gate(code, name):
        return _of_a_bit(source.version, code, name, is_angle="parameter" in message)
    library = "qelib1.inc" if source.version == 2 else "stdgates.inc"
    if name in gates and library not in source.text:
        return f'a gate of {library}: write include "{library}"; after the version line'
    known = {*_names(_DEFINED, code), *gates}
    other = _OTHER_NAMES_3.get(name, "") if source.version == 3 else ""
    other = other or _OTHER_NAMES.get(name.lower(), name.lower())
    similar = [other] if other in known or " " in other else []
    if not similar and name not in elsewhere:
        similar = _similar(name, known, 0.75)
    if similar:
        return f"did you mean {similar[0]!r}?"
    return f"no gate of {library}: define it before its use, by gate {name:.{MAX_NAME}} ..."


def _names(pattern: re.Pattern[str], code: str) -> list[str]:
    """Return distinct names of the first MAX_NAMES of at most MAX_NAME characters."""
    found = (match[1] for match in pattern.finditer(code))
    short = dict.fromkeys(islice((name for name in found if len(name) <= MAX_NAME), MAX_NAMES))
    return list(short)


def _similar(name: str, known: Collection[str], cutoff: float) -> list[str]:
    """Return the most similar name, if there is one. Comparing takes the square of the length."""
    return get_close_matches(name, known, 1, cutoff) if len(name) <= MAX_NAME else []


def _is_gate(code: str, name: str) -> bool:
    """Return whether a name is used as a gate: parameters or operands come after it."""
    return re.search(rf"\b{name}\s*(?:\(|(?<=\s)[A-Za-z_$])", code) is not None


def _of_a_bit(version: int, code: str, name: str, *, is_angle: bool) -> str:
    """Return the way out of an unknown register or parameter."""
    similar = _similar(name, _names(_DECLARED, code), 0.5)
    if similar:
        return f"did you mean {similar[0]!r}?"
    name = name[:MAX_NAME]
    if version == 3:
        return f"declare it before its use: qubit[1] {name};, bit[1] {name}; or input float {name};"
    if is_angle:
        return f"OpenQASM 2 has no free parameters; OpenQASM 3 has: input float {name};"
    return f"declare it before its use: qreg {name}[1]; or creg {name}[1];"
