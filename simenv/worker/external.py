"""Programs of pools with `engine=external`: one process a circuit, in a process group of its own.

Invariant: no process outlives its run (`simenv.sandbox.program`), nor what the program has started
and left; when this worker dies, the kernel kills the program, but not what it has started. It gets
no SIMENV_* variable, and reads no memory or descriptors of this worker, which has the connection.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import string
import tempfile
from pathlib import Path
from typing import IO

from simenv.process import log_line
from simenv.sandbox import die_with_parent
from simenv.sandbox.process_tree import children, kill_orphans
from simenv.sandbox.program import OutputLimitError, last_text, run_program
from simulators.engine import RunControl
from simulators.errors import BadAnswer, MachineFailed, MachineRefused
from simulators.external.engine import MAX_BYTES, ProgramCall

_STDERR_CHARS = 2_000  # of stderr in a failure's message; the worker's log has more
_LOGGED_BYTES = 64 * 2**10
_RESERVED = "SIMENV_"  # variables of the environment itself


# A line of stderr by which a program reports its progress.
_PROGRESS = re.compile(rb"^progress: (\d{1,15}) of (\d{1,15}) ([a-z]{1,40})\r?$", re.MULTILINE)
_TAIL_BYTES = 4_096  # of stderr, in which the last such line is looked for


class _ReportedProgress:
    """Progress that a program reports on stderr."""

    def __init__(self, stream: IO[bytes], control: RunControl) -> None:
        self._stream = stream.fileno()
        self._control = control
        self._read = 0  # bytes

    def read(self) -> None:
        """Take over the last line."""
        size = os.fstat(self._stream).st_size
        if size == self._read:
            return
        self._read, begin = size, max(0, size - _TAIL_BYTES)
        lines = _PROGRESS.findall(os.pread(self._stream, size - begin, begin))
        if lines:
            done, total, unit = lines[-1]
            self._control.report(int(done), int(total), unit.decode())


class ExternalProgram:
    """The program of one pool. Used from the main thread, whose end kills the processes that it
    started."""

    def __init__(self, command: str, scratch: Path) -> None:
        """`command`: as checked by `config.pools.check_command`. `scratch`: a folder of this worker
        alone; files that a killed worker of the same name has left in it are removed."""
        shutil.rmtree(scratch, ignore_errors=True)
        self._scratch = scratch
        self._template = shlex.split(command)
        self.name = Path(self._template[0]).name
        parts = (part for word in self._template for part in string.Formatter().parse(word))
        self.takes_seed = any(name == "seed" for _, name, _, _ in parts)

    def output(self, call: ProgramCall, control: RunControl) -> str:
        """See `simulators.external.engine.Program`."""
        program = self._template[0]
        if shutil.which(program) is None:
            text = f"the program {program[:200]!r} is not on this node ({os.uname().nodename})"
            hint = "load its module before `simenv up`, or give its path: the pool's command"
            raise MachineRefused(text, hint=hint)
        self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            circuit = Path(folder) / "circuit.qasm"
            circuit.write_text(call.circuit)
            with (Path(folder) / "stdout").open("w+b") as out, tempfile.TemporaryFile() as err:
                self._run(self._argv(circuit, call), folder, call.ranks, (out, err), control)
                return self._text(out)

    def _argv(self, circuit: Path, call: ProgramCall) -> list[str]:
        values = {"circuit": str(circuit), "shots": call.shots, "seed": call.seed}
        return [part.format(**values, ranks=call.ranks) for part in self._template]

    def _run(
        self,
        argv: list[str],
        folder: str,
        ranks: int,
        streams: tuple[IO[bytes], IO[bytes]],
        control: RunControl,
    ) -> None:
        environ = {k: v for k, v in os.environ.items() if not k.startswith(_RESERVED)}
        progress, others = _ReportedProgress(streams[1], control), children(os.getpid())

        def check() -> None:
            control.check()
            progress.read()

        try:
            code = run_program(
                die_with_parent.command_line(os.getpid(), argv),
                streams,
                MAX_BYTES,
                environ={**environ, "OMP_NUM_THREADS": str(ranks)},
                cwd=folder,
                check=check,
            )
            progress.read()
        except OutputLimitError as error:
            raise self._too_long() from error
        finally:
            kill_orphans(others)
            stderr_text = last_text(streams[1], _LOGGED_BYTES)
            if stderr_text:
                log_line(f"{self.name}: {stderr_text}")
        if code:
            cause = f"exit code {code}" if code > 0 else f"signal {-code}"
            raise MachineFailed(
                f"the program {self.name} ended with {cause}: "
                f"{stderr_text[-_STDERR_CHARS:] or 'no message'}"
            )

    def _text(self, out: IO[bytes]) -> str:
        """Return what the program has printed, and what it has left running may still print."""
        out.seek(0)
        data = out.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise self._too_long()
        return data.decode("utf-8", "replace")

    def _too_long(self) -> BadAnswer:
        return BadAnswer(f"the program {self.name} printed more than {MAX_BYTES} bytes")
