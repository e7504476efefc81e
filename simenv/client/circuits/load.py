"""Conversion of any accepted form of a circuit to a Program.

Invariant: `load` raises only SimenvError, whatever its argument is. This module imports neither
Cirq nor stim; the caller's circuit shows that they are installed.

OpenQASM 3 is converted to a QuantumCircuit by Qiskit's importer (an optional package). Invariant:
the parser gets only text that passed `text_checks`; errors of the parser and importer are raised as
ProgramError or LimitExceededError, with line and column if they are known.

Cirq circuits are converted through the OpenQASM 2 that Cirq writes. Angles have 16 digits. Qubit k
of the program is the k-th of Cirq's sorted qubits; a measurement key is a classical register, which
is measured once. Subcircuits are unrolled.

QIR of the base profile is read as LLVM assembly or bitcode, through the optional package pyqir.
Source: the base profile of the QIR specification,
https://github.com/qir-alliance/qir-spec/blob/main/specification/under_development/profiles. It has
one entry point, static qubits and results, and no branches on results. Result k is clbit k of a
register `result`; output-recording calls are ignored. Other content is refused by name.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NoReturn

from simenv.client.circuits import native, parser_hints, qasm2, text_checks
from simenv.client.circuits.encoder import ChannelNames, CircuitEncoder, EncodedProgram, pack
from simenv.client.circuits.parameters import PackedCircuit, ParameterSlots
from simenv.client.circuits.text_checks import label
from simenv.errors import LimitExceededError, ProgramError, SimenvError
from simenv.model import MAX_QUBITS, Program
from simenv.model.paradigms import annealing_refused, is_annealing
from simenv.transpiler import qiskit_runtime, qpy
from simenv.transpiler.qiskit_runtime import is_circuit

if TYPE_CHECKING:
    from simenv.client.circuits.qasm3_importer import ParsedQasm3

_SHOWN = 160  # characters of a parser's message; some list all tokens
_PHYSICAL = re.compile(r"\$(\d+)")


def parse(source: text_checks.SourceText) -> ParsedQasm3:
    """Parse the text. Raises ProgramError with the place, or with the package to install."""
    _check_physical(source)
    try:
        qiskit_runtime.qiskit()
        from simenv.client.circuits import qasm3_importer
    except ImportError as error:
        message = f"{label(source.name)}OpenQASM 3 needs the package qiskit-qasm3-import ({error})"
        raise ProgramError(message, hint="pip install 'simenv[qasm3]'") from error
    try:
        return qasm3_importer.convert(source, _tree(source))
    except SimenvError:
        raise
    except RecursionError as error:
        message = f"{label(source.name)}nested too deeply for the OpenQASM 3 parser"
        hint = "write long expressions and nested blocks in steps"
        raise ProgramError(message, hint=hint) from error
    except MemoryError as error:
        raise LimitExceededError(f"{label(source.name)}no memory left to parse the text") from error
    except Exception as error:
        text = str(error) or type(error).__name__
        raise ProgramError(f"{label(source.name)}the text cannot be parsed: {text}") from error


def _tree(source: text_checks.SourceText) -> Any:
    """Return the syntax tree. The parser's own entry point prints errors and drops their text."""
    import openqasm3.parser
    from antlr4.error.ErrorListener import ErrorListener  # type: ignore[import-untyped]

    openqasm: Any = openqasm3.parser

    class Refuse(ErrorListener):  # type: ignore[misc]
        def syntaxError(  # noqa: N802  the parser calls it by this name
            self, _parser: Any, _symbol: Any, line: int, column: int, message: str, _error: Any
        ) -> None:
            settings = message if len(message) <= _SHOWN else message[:_SHOWN] + "..."
            text = text_checks.location(source.name, line, column + 1) + settings
            hint = parser_hints.hint(source, message, parser_hints.STDGATES, qasm2.GATE_NAMES)
            raise ProgramError(text, hint=hint, line=line, column=column + 1)

    lexer = openqasm.qasm3Lexer(openqasm.InputStream(source.text))
    parser = openqasm.qasm3Parser(openqasm.CommonTokenStream(lexer))
    for part in (lexer, parser):
        part.removeErrorListeners()
        part.addErrorListener(Refuse())
    try:
        return openqasm.QASMNodeVisitor().visitProgram(parser.program())
    except openqasm.QASM3ParsingError as error:
        result = re.fullmatch(r"L(\d+):C(\d+): (.*)", str(error), re.DOTALL)
        line, column = (int(result.group(1)), int(result.group(2)) + 1) if result else (1, 1)
        text = result.group(3) if result else str(error)
        raise ProgramError(
            text_checks.location(source.name, line, column) + text, line=line, column=column
        ) from error


def _check_physical(source: text_checks.SourceText) -> None:
    for match in _PHYSICAL.finditer(source.text):
        digits = match.group(1)
        if len(digits) > 9 or int(digits) >= MAX_QUBITS:
            prefix = text_checks.location(source.name, *source.position(match.start()))
            raise text_checks.too_many_bits("qubits", int(digits[:9]) + 1, MAX_QUBITS, prefix)


_PRECISION = 16  # digits of an angle, in half turns
_SHOWN_CHARS = 200
_KINDS = ("Circuit", "FrozenCircuit")


def is_cirq(circuit: Any) -> bool:
    """Return whether an object is a cirq.Circuit or cirq.FrozenCircuit."""
    kind = type(circuit)
    return kind.__name__ in _KINDS and kind.__module__.partition(".")[0] == "cirq"


def cirq_to_qasm(circuit: Any) -> str:
    """Convert a circuit to OpenQASM 2. Raises ProgramError for noise channels, qudits, free
    parameters, keys that are measured more than once, and circuits without qubits."""
    if not circuit.all_qubits():
        raise ProgramError("the Cirq circuit has no qubits")
    wide = [qubit for qubit in circuit.all_qubits() if qubit.dimension != 2]
    if wide:
        raise ProgramError(f"the Cirq circuit has a qudit: {str(wide[0])[:_SHOWN_CHARS]}")
    cirq: Any = sys.modules["cirq"]
    try:
        circuit = cirq.unroll_circuit_op(circuit, deep=True, tags_to_check=None)
    except (ValueError, TypeError) as error:
        message = f"a CircuitOperation of the Cirq circuit: {str(error)[:_SHOWN_CHARS]}"
        raise ProgramError(message, hint="write its operations into the circuit") from error
    _check_keys(circuit, cirq)
    free = sorted(circuit._parameter_names_()) if circuit._is_parameterized_() else []
    if free:
        message = f"the Cirq circuit has free parameters: {', '.join(free[:5])}"
        hint = "cirq.resolve_parameters(circuit, values); or parameters of a QuantumCircuit"
        raise ProgramError(message, hint=hint)
    try:
        text: str = circuit.to_qasm(precision=_PRECISION)
    except (ValueError, TypeError, KeyError) as error:
        message = f"OpenQASM 2 cannot carry the Cirq circuit: {str(error)[:_SHOWN_CHARS]}"
        hint = "noise is an option of the task (device=, noise=); conditions are on one bit"
        raise ProgramError(message, hint=hint) from error
    return text


def _check_keys(circuit: Any, cirq: Any) -> None:
    """Raise ProgramError for a measurement key of several records: a register holds one."""
    keys = Counter(
        str(key)
        for operation in circuit.all_operations()
        for key in cirq.measurement_key_objs(operation)
    )
    for key, count in keys.items():
        if count > 1:
            message = f"the Cirq circuit measures the key {key[:_SHOWN_CHARS]!r} {count} times"
            hint = "a key has one record here: give each measurement a key of its own"
            raise ProgramError(message, hint=hint)


BITCODE = b"BC\xc0\xde"
_MARK = "@__quantum__"
_BEGINNING_CHARS = 2**14  # of a text, by which its format is recognized
_OPENQASM = re.compile(r"^[ \t]*OPENQASM\b", re.MULTILINE)
_ASSEMBLY = re.compile(
    r"^[ \t]*(?:; ModuleID|source_filename[ \t]*=|target[ \t]+(?:datalayout|triple)[ \t]*=|"
    r"(?:define|declare)[ \t][^\n]*@|attributes[ \t]+#[0-9]|%[\w.]+[ \t]*=[ \t]*type\b)",
    re.MULTILINE,
)
_GATES = {  # name between __quantum__qis__ and __body: gate of OpenQASM 2, angles, qubits
    **{name: (name, 0, 1) for name in ("h", "x", "y", "z", "s", "t", "sx")},
    **{name: (name, 1, 1) for name in ("rx", "ry", "rz")},
    **{name: (name, 0, 2) for name in ("cx", "cy", "cz", "swap")},
    **{name: (name, 1, 2) for name in ("rxx", "rzz")},
    "cnot": ("cx", 0, 2),
    "ccx": ("ccx", 0, 3),
    "ccnot": ("ccx", 0, 3),
    "reset": ("reset", 0, 1),
}
_ADJOINTS = {"s": ("sdg", 0, 1), "t": ("tdg", 0, 1)}
_IGNORED = ("initialize", "result_record_output", "array_record_output", "tuple_record_output")
_RESULT_BITS = 65_535


def is_qir(circuit: Any) -> bool:
    """Return whether an object is a pyqir.Module."""
    kind = type(circuit)
    return (
        kind.__name__ == "Module" and hasattr(circuit, "functions") and hasattr(circuit, "bitcode")
    )


def is_assembly(text: str) -> bool:
    """Return whether a text is LLVM assembly, also if it is wrong, and no OpenQASM."""
    beginning = text[:_BEGINNING_CHARS]
    if _OPENQASM.search(beginning) is not None:
        return False
    return (_MARK in text and "define " in text) or _ASSEMBLY.search(beginning) is not None


def qir_to_qasm(module: Any) -> str:
    """Convert a pyqir.Module, LLVM assembly (str) or bitcode (bytes) to OpenQASM 2. Raises
    ProgramError if it cannot be read or is not of the base profile, or without pyqir."""
    try:
        import pyqir
    except ImportError as error:
        hint = "pip install 'simenv[qir]'"
        raise ProgramError(f"QIR needs the package pyqir ({error})", hint=hint) from error
    try:
        if isinstance(module, str):
            module = pyqir.Module.from_ir(pyqir.Context(), module)
        elif isinstance(module, bytes):
            module = pyqir.Module.from_bitcode(pyqir.Context(), module)
    except ValueError as error:
        raise ProgramError(f"the QIR cannot be read: {str(error).splitlines()[0]}") from error
    entries = [function for function in module.functions if pyqir.is_entry_point(function)]
    if len(entries) != 1:
        hint = 'one function with the attribute "entry_point"'
        raise ProgramError(f"the QIR module has {len(entries)} entry points", hint=hint)
    qubits = pyqir.required_num_qubits(entries[0]) or 0
    results = pyqir.required_num_results(entries[0]) or 0
    if not 0 < qubits <= _RESULT_BITS or results > _RESULT_BITS:
        message = f"the QIR entry point requires {qubits} qubits and {results} results"
        hint = "the base profile states them as required_num_qubits, required_num_results"
        raise ProgramError(message, hint=hint)
    head = ["OPENQASM 2.0;", 'include "qelib1.inc";', f"qreg q[{qubits}];"]
    if results:
        head.append(f"creg result[{results}];")
    return "\n".join([*head, *_statements(entries[0], pyqir, qubits, results)])


def _refuse_beyond_base(function: Any, what: str) -> NoReturn:
    """Raise ProgramError for what the base profile lacks, with the profile that the QIR states."""
    attributes = function.attributes.func
    profile = attributes["qir_profiles"].string_value if "qir_profiles" in attributes else ""
    subject = "the QIR"
    if profile not in ("", "base_profile", "custom"):
        subject = f"QIR of the profile {profile[:_SHOWN_CHARS]!r} is not carried beyond base: it"
    raise ProgramError(f"{subject} {what}", hint=_BASE_ONLY)


def _statements(function: Any, pyqir: Any, qubits: int, results: int) -> Iterator[str]:
    blocks = function.basic_blocks
    visited: set[str] = set()
    block = blocks[0] if blocks else None
    while block is not None:
        if block.name in visited:
            _refuse_beyond_base(function, "has a loop")
        visited.add(block.name)
        terminator = block.terminator
        for instruction in block.instructions:
            if isinstance(instruction, pyqir.Call):
                name = instruction.callee.name
                if name.removeprefix("__quantum__qis__").removeprefix("__quantum__rt__") in _READS:
                    _refuse_beyond_base(function, f"reads a result ({name})")
                yield _statement(instruction, pyqir, qubits, results)
            elif instruction.opcode not in (pyqir.Opcode.BR, pyqir.Opcode.RET):
                opcode = str(instruction.opcode).rpartition(".")[2].lower()
                _refuse_beyond_base(function, f"has the instruction {opcode}")
        successors = terminator.successors if terminator is not None else []
        if len(successors) > 1:
            _refuse_beyond_base(function, "branches on a value")
        block = successors[0] if successors else None


_READS = ("read_result__body", "read_result", "result_equal", "result_get_one", "result_get_zero")
_BASE_ONLY = (
    "the base profile has calls only, no branches on results: unroll loops, or write the circuit "
    "in OpenQASM 3 or Qiskit"
)


def _statement(call: Any, pyqir: Any, qubits: int, results: int) -> str:
    name = call.callee.name
    short = name.removeprefix("__quantum__qis__").removeprefix("__quantum__rt__")
    if name.startswith("__quantum__rt__") and short in _IGNORED:
        return ""
    if short in ("mz__body", "m__body"):
        qubit, result = (
            _number(call, k, pyqir, bound) for k, bound in enumerate((qubits, results))
        )
        return f"measure q[{qubit}] -> result[{result}];"
    base, _, kind = short.partition("__")
    gate = (_ADJOINTS if kind == "adj" else _GATES if kind == "body" else {}).get(base)
    if gate is None or not name.startswith("__quantum__qis__"):
        hint = f"gates that are known: {', '.join(sorted(_GATES))}"
        raise ProgramError(f"the QIR calls {name}", hint=hint)
    gate_name, angles, width = gate
    if len(call.args) != angles + width:
        raise ProgramError(f"the QIR calls {name} with {len(call.args)} arguments")
    values = [_angle(call, k, pyqir) for k in range(angles)]
    targets = [f"q[{_number(call, angles + k, pyqir, qubits)}]" for k in range(width)]
    return f"{gate_name}{f'({values[0]!r})' if values else ''} {','.join(targets)};"


def _angle(call: Any, index: int, pyqir: Any) -> float:
    value = call.args[index]
    if not isinstance(value, pyqir.FloatConstant):
        raise ProgramError(f"the QIR calls {call.callee.name} with an angle that is computed")
    return float(value.value)


def _number(call: Any, index: int, pyqir: Any, bound: int) -> int:
    """Return the number of a static qubit or result."""
    number = pyqir.ptr_id(call.args[index]) if index < len(call.args) else None
    if number is None:
        message = f"the QIR calls {call.callee.name} with a qubit or result that is not static"
        raise ProgramError(message, hint="the base profile has numbers of qubits and results only")
    if number >= bound:
        raise ProgramError(f"the QIR uses number {number} of {bound} in {call.callee.name}")
    return int(number)


def is_stim(circuit: Any) -> bool:
    """Return whether an object is a stim.Circuit."""
    kind = type(circuit)
    return kind.__name__ == "Circuit" and kind.__module__.partition(".")[0] in ("stim", "_stim")


def is_pulses(circuit: Any) -> bool:
    """Return whether an object is a pulse sequence: a pulser.Sequence, or its abstract
    representation, a text that begins with a brace."""
    if isinstance(circuit, str):
        return circuit.lstrip()[:1] == "{"
    kind = type(circuit)
    return kind.__name__ == "Sequence" and kind.__module__.partition(".")[0] == "pulser"


_MOST_FILES = 10_000  # of a folder that are compared
CACHED_TEXTS = 128
CACHED_TEXT_BYTES = 2**16  # of one text and its program
_LAST_TEXTS: dict[str, PackedCircuit] = {}  # without a lock, which a fork could leave locked
_HINT = (
    "a circuit is a QuantumCircuit, a cirq.Circuit, OpenQASM or QIR text, the path of a file (QPY "
    "too), or a Program"
)


def load(circuit: Any, channels: ChannelNames | None = None) -> PackedCircuit:
    """Convert a circuit to a packed Program.

    `circuit`: a qiskit.QuantumCircuit; a cirq.Circuit; a str, which is OpenQASM text if it holds a
    newline or ';' and else a path; QIR of the base profile, as text or a pyqir.Module; an
    os.PathLike; a Program; a PackedCircuit. A file holds OpenQASM, QPY or QIR. `channels`: of the
    noise model that the circuit will run with; then a QuantumCircuit's labels are read.

    Raises ProgramError if the circuit cannot be read or sent (with `line` and `column` for text),
    and LimitExceededError if it is too large.
    """
    if isinstance(circuit, PackedCircuit):
        return circuit
    try:
        if isinstance(circuit, str):
            if is_assembly(circuit):
                return _from_qir(circuit)
            if "\n" in circuit or ";" in circuit:
                return _from_text(circuit)
            hint = "text, as opposed to a path, has a newline or ';' in it"
            return _from_file(circuit, channels, hint)
        if is_circuit(circuit):
            return _encoded(circuit, channels)
        if isinstance(circuit, os.PathLike):
            return _from_file(os.fspath(circuit), channels)
        if isinstance(circuit, Program):
            names = tuple(f"p{slot}" for slot in range(circuit.num_slots))
            return _pack_program(circuit, names, None)
        if is_cirq(circuit):
            return _from_source(text_checks.inspect(cirq_to_qasm(circuit)))
        if is_qir(circuit):
            return _from_qir(circuit)
    except RecursionError as error:
        hint = "flatten it: circuit.decompose()"
        raise ProgramError("the circuit is nested too deeply", hint=hint) from error
    except MemoryError as error:
        raise LimitExceededError("no memory left to pack the circuit", hint="split it") from error
    _refuse(circuit)


def load_many(circuits: Sequence[Any]) -> list[PackedCircuit | None]:
    """Convert QuantumCircuits by the compiled encoder, in a fifth less time than one by one. None:
    `load` is to convert the circuit, or to refuse it."""
    if all(map(is_circuit, circuits)):
        with suppress(MemoryError):
            return [
                loaded if loaded and len(loaded.packed) <= text_checks.MAX_PACKED_BYTES else None
                for loaded in native.CHOICE.loaded_many(circuits)
            ]
    return [None] * len(circuits)


def _similar_file(path: str) -> str:
    """Return the path of the file in the same folder whose name is most similar; "": there is
    none."""
    folder, name = os.path.split(path)
    names: dict[str, str] = {}
    with suppress(OSError, ValueError), os.scandir(folder or ".") as entries:
        names = {entry.name.lower(): entry.name for entry in itertools.islice(entries, _MOST_FILES)}
    similar = get_close_matches(name.lower(), names, 1, cutoff=0.75)
    return os.path.join(folder, names[similar[0]]) if similar else ""


def _from_file(path: str | bytes, channels: ChannelNames | None, hint: str = "") -> PackedCircuit:
    name = os.fsdecode(path)
    try:
        with open(path, "rb") as file:
            data = file.read(text_checks.MAX_TEXT_BYTES + 1)
            if len(data) > text_checks.MAX_TEXT_BYTES:
                raise text_checks.too_large(max(os.fstat(file.fileno()).st_size, len(data)), name)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        short_name = name if len(name) <= 100 else name[:100] + "..."
        if isinstance(error, FileNotFoundError) and (similar := _similar_file(name)):
            hint = f"did you mean {similar!r}?"
        raise ProgramError(f"{short_name!r} cannot be read: {reason}", hint=hint) from error
    if data.startswith(qpy.MAGIC):
        return _encoded(qpy.parse(data, name), channels)
    if data.startswith(BITCODE):
        return _from_qir(data)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        refused = ProgramError(
            "not UTF-8 text", hint="a file holds OpenQASM, which is UTF-8 text, or QPY"
        )
        raise text_checks.relocate(refused, name, line, column) from error
    return _from_qir(text) if is_assembly(text) else _from_source(text_checks.inspect(text, name))


def _from_qir(module: Any) -> PackedCircuit:
    return _from_source(text_checks.inspect(qir_to_qasm(module)))


def _from_text(text: str) -> PackedCircuit:
    """Parse a text, unless it is one of the last: many callers send one text again and again."""
    loaded = _LAST_TEXTS.get(text)
    if loaded is None:
        loaded = _from_source(text_checks.inspect(text))
        if len(text) + len(loaded.packed) <= CACHED_TEXT_BYTES:
            if len(_LAST_TEXTS) >= CACHED_TEXTS:
                _LAST_TEXTS.clear()
            _LAST_TEXTS[text] = loaded
    return loaded


def _from_source(source: text_checks.SourceText) -> PackedCircuit:
    if source.version == 2:
        program = qasm2.program(source)
        if program is not None:
            return _pack_program(program, (), None)
        circuit = qasm2.parse(source)
        read = None
    else:
        read = parse(source)
        circuit = read.circuit
    packer = CircuitEncoder(circuit)
    try:
        return _encode_natively(circuit) or _loaded(packer.run(), circuit)
    except SimenvError as error:
        if packer.at >= 0:
            line_and_column = (
                read.position(packer.at) if read else qasm2.position(source, packer.at)
            )
            text_checks.relocate(error, source.name, *line_and_column)
        raise


def _encoded(circuit: Any, channels: ChannelNames | None) -> PackedCircuit:
    """Encode a QuantumCircuit, by the compiled encoder if it has no labels that matter: reading
    labels takes several times as long as that encoder."""
    loaded = None
    if channels is None or not any(item.label for item in circuit._data):
        loaded = _encode_natively(circuit)
    return loaded or _loaded(pack(circuit, channels), circuit)


def _encode_natively(circuit: Any) -> PackedCircuit | None:
    loaded = native.CHOICE.loaded(circuit)
    if loaded is not None and len(loaded.packed) > text_checks.MAX_PACKED_BYTES:
        _refuse_size(loaded.packed)
    return loaded


def _loaded(packed: EncodedProgram, circuit: Any) -> PackedCircuit:
    parameters = tuple(circuit.parameters) if circuit.num_parameters else ()
    return _pack_program(packed.program, parameters, packed.expressions)


def _pack_program(
    program: Program, parameters: tuple[Any, ...], expressions: tuple[Any, ...] | None
) -> PackedCircuit:
    packed = program.packed()
    if len(packed) > text_checks.MAX_PACKED_BYTES:
        _refuse_size(packed)
    names = tuple([getattr(parameter, "name", parameter) for parameter in parameters])
    measures, slots = program.measures, ParameterSlots(parameters, expressions)
    return PackedCircuit(packed, program.num_qubits, measures, names, slots)


def _refuse_size(packed: bytes) -> NoReturn:
    message = f"the program is {len(packed)} bytes; the limit is {text_checks.MAX_PACKED_BYTES}"
    raise LimitExceededError(message, hint="split the circuit")


def _refuse(circuit: Any) -> NoReturn:
    kind = type(circuit).__name__
    if is_annealing(circuit):
        raise annealing_refused(f"an object of type {kind}")
    hint = _HINT
    if isinstance(circuit, bytes | bytearray | memoryview):
        hint = "decode it first: " + _HINT
    elif is_stim(circuit):
        hint = "a circuit of stim goes to `submit` or `run`, one by one; " + _HINT
    elif is_pulses(circuit):
        hint = (
            "a pulse sequence goes to `submit` or `run`, a sweep of it to `submit_many`; " + _HINT
        )
    elif isinstance(circuit, list | tuple | Mapping):
        hint = "several circuits go to submit_many; " + _HINT
    raise ProgramError(f"an object of type {kind} is no circuit", hint=hint)
