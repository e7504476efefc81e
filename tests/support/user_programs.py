"""What functions of users do. Each function is complete in itself, so that it can be sent to a
worker, works in the current folder, and raises if something does not work."""

from collections.abc import Callable
from typing import Any

NAMES = ("numbers", "circuits", "files", "processes", "waiting")


def by_value(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as one of a script: modules of tests are not on the path of workers."""
    function.__module__ = "__main__"
    return function


def numbers() -> None:
    from concurrent.futures import ThreadPoolExecutor

    import numpy
    import scipy.linalg
    import scipy.optimize

    matrix = numpy.random.default_rng(1).normal(size=(400, 400))
    with ThreadPoolExecutor(2) as pool:
        products = list(pool.map(lambda each: each @ matrix, [matrix] * 2))
    assert numpy.allclose(products[0] @ scipy.linalg.inv(matrix), matrix)
    numpy.save("matrix.npy", matrix)
    assert numpy.load("matrix.npy", mmap_mode="r").shape == (400, 400)
    assert scipy.optimize.minimize(lambda x: float(x @ x), numpy.ones(3)).success


def circuits() -> None:
    from qiskit import QuantumCircuit, qasm2, transpile
    from qiskit.quantum_info import Statevector
    from qiskit_aer import AerSimulator

    circuit = QuantumCircuit(4)
    circuit.h(0)
    for k in range(3):
        circuit.cx(k, k + 1)
    assert Statevector(circuit).probabilities_dict().keys() == {"0000", "1111"}
    circuit.measure_all()
    simulator = AerSimulator()
    counts = simulator.run(transpile(circuit, simulator), shots=100).result().get_counts()
    assert set(counts) <= {"0000", "1111"}
    assert qasm2.dumps(circuit)


def files() -> None:
    import os
    import sqlite3
    import tempfile
    import zipfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile() as file:
        file.write(b"x")
        Path(folder, "a").write_text("x")
        os.rename(f"{folder}/a", f"{folder}/b")
        with zipfile.ZipFile(f"{folder}/z", "w") as archive:
            archive.write(f"{folder}/b")
    database = sqlite3.connect("data.db")
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE t (x)")
    database.executemany("INSERT INTO t VALUES (?)", [(k,) for k in range(100)])
    database.commit()
    assert database.execute("SELECT sum(x) FROM t").fetchone() == (4950,)
    database.close()


def processes() -> None:
    import multiprocessing
    import subprocess
    import sys

    upper = [sys.executable, "-c", "import sys; print(sys.stdin.read().upper())"]
    done = subprocess.run(upper, input=b"x", capture_output=True, check=True)
    assert done.stdout == b"X\n"
    done = subprocess.run(["sh", "-c", "ls /usr | sort | head -1"], capture_output=True, check=True)
    assert done.stdout
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as sleeping:
        sleeping.terminate()
    fork = multiprocessing.get_context("fork")
    read, write = fork.Pipe()
    child = fork.Process(target=write.send, args=(42,))
    child.start()
    assert read.recv() == 42
    child.join()


def waiting() -> None:
    import asyncio
    import signal
    import threading
    import time

    async def both() -> int:
        process = await asyncio.create_subprocess_exec("true")
        code, _ = await asyncio.gather(process.wait(), asyncio.to_thread(time.sleep, 0))
        return code

    assert asyncio.run(both()) == 0
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGALRM, lambda *_: None)
    event = threading.Event()
    threading.Timer(0.01, event.set).start()
    assert event.wait(60)
