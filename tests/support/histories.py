"""Histories made up for tests: rows of the log, in the shapes that applications leave behind."""

from simenv.model import TaskState, Timing, task_name
from simenv.wire.messages.history import LogRow, Spent

T0 = 1_700_000_000.0


class History:
    """Tasks one after the other; times in microseconds since the beginning."""

    def __init__(self) -> None:
        self.rows: list[LogRow] = []

    def add(
        self, at_us: int, queued: int = 0, sent: int = 0, decode: int = 0, plan: int = 0,
        engine: int = 100, encode: int = 0, returned: int = 0, *, message: int | None = None,
        structure: str = "s", bindings: int = 1, worker: str = "main-0",
        state: TaskState = TaskState.DONE, attempts: int = 1, ended: bool = True,
        spent: Spent | None = None,
    ) -> int:  # fmt: skip
        """One task; returns when it ends."""
        number = len(self.rows) + 1
        run = decode + plan + engine + encode
        timing = Timing(queued, sent, run, decode, plan, engine, encode, returned)
        end_us = at_us + queued + sent + run + returned
        self.rows.append(
            LogRow(
                id=task_name(number),
                name="",
                app="run-1",
                state=state,
                submitted_s=T0 + 1e-6 * at_us,
                ended_s=T0 + 1e-6 * end_us if ended else 0.0,
                timing=timing,
                engine="statevector",
                pool="main",
                worker=worker,
                node="here",
                shots=100,
                num_qubits=4,
                bindings=bindings,
                seed=number,
                binding=0,
                attempts=attempts,
                slots=1,
                message=task_name(number if message is None else message),
                structure=structure,
                spent=spent or Spent(),
            )
        )
        return end_us
