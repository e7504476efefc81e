# %% [markdown]
"""Circuits from coroutines: in a notebook, cell by cell, or as a script.

A notebook's kernel runs an event loop of its own; an environment works inside it. Each `# %%`
begins a cell in editors that know them. A notebook takes `await` as it stands; here `main` does.
"""

from __future__ import annotations

import asyncio
import importlib.util

import simenv
from simenv.library import ghz

SIZES = (2, 4, 6, 8, 10)


# %% One task: `await` gives its result, and the loop goes on meanwhile
async def single(client: simenv.Client) -> None:
    task = client.submit(ghz(3).circuit, shots=1000, seed=1)
    print(task)  # nobody is asked: this never waits
    result = await task
    print(f"3 qubits: {dict(sorted(result.counts.items()))}")


# %% Several: gathered like any awaitables, in the order in which they were given
async def several(client: simenv.Client) -> None:
    tasks = client.submit_many([ghz(size).circuit for size in SIZES], shots=1000, seed=2)

    async def wait(task: simenv.Task) -> simenv.Result:
        return await task

    for size, result in zip(SIZES, await asyncio.gather(*map(wait, tasks)), strict=True):
        print(f"{size} qubits: {len(result.counts)} different outcomes")


# %% What a cell shows of a task: its result as a histogram, and its circuit; plots and bars
def shown(client: simenv.Client) -> None:
    tasks = client.submit_many([ghz(2).circuit, ghz(3).circuit], shots=1000, seed=4)
    for task in simenv.as_completed(tasks, progress="rich"):
        print(f"{task.circuit().num_qubits} qubits: {len(task._repr_html_())} characters of HTML")
    if importlib.util.find_spec("matplotlib") is not None:
        axes = tasks[1].result().plot()
        axes.figure.savefig("counts.png", bbox_inches="tight")


# %% All that the environment has completed, in order, until nothing is left
async def completed(client: simenv.Client) -> None:
    value = 0
    async for completion in client.completions():
        if completion.error is None:
            completion.result()
        client.ack(completion.seq)  # read safely: the next iteration starts behind it
        value += 1
    print(f"{value} completions read and acknowledged")


# %% A deadline of one's own: the task goes on, or is cancelled
async def impatient(client: simenv.Client) -> None:
    task = client.submit(ghz(20).circuit, shots=None, outputs=("probabilities",))

    async def wait() -> simenv.Result:
        return await task

    try:
        await asyncio.wait_for(wait(), timeout=60.0)
        print("20 qubits, exactly: done in time")
    except TimeoutError:
        task.cancel()
        print("20 qubits, exactly: cancelled")


async def main() -> None:
    with simenv.local(workers=2) as client:
        await single(client)
        await several(client)
        shown(client)
        await completed(client)
        await impatient(client)


# %%
if __name__ == "__main__":
    asyncio.run(main())
