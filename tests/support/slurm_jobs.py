"""Jobs with `--qpu`, and the ends of their reservations.

    python slurm_jobs.py watch JOB                             until its reservation has ended
    python slurm_jobs.py many COUNT SEED USER_ID... -- SBATCH_ARGUMENTS...

`many` submits jobs as the users, and cancels some of them at random: what is left, and doubled.
Runs on the login node as root. Prints one JSON object at its end, in which `late_s` is the longest
time from the end of a job, as Slurm sees it, to the end of its reservation.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter

import simenv
from simenv.errors import SimenvError
from simenv.frontends.slurm import jobs

CLUSTER = "simenv"
POLL_S = 0.1
WAITING = 12  # jobs that wait at a time
CANCELLED = 0.6  # of all jobs
LEFT_S = 60.0  # longest wait for the last reservations
# From the submission: while a job waits, its reservation is made, its program runs.
CANCEL_S = (0.0, 6.0)


def submit(uids: list[int], argv: list[str]) -> int:
    uid = random.choice(uids)
    line = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "sbatch"]
    return int(subprocess.check_output([*line, "--parsable", *argv], text=True))


def watch(number: int) -> dict[str, float]:
    ended_s = 0.0
    with simenv.connect(service=os.environ["SERVICE"]) as client:
        while True:
            is_live = any(each.job == str(number) for each in jobs.of_cluster(client, CLUSTER))
            try:
                known = jobs.listed_jobs()
            except SimenvError:  # slurmctld starts
                known = {}
                ended_s = 0.0
            else:
                if not (number in known and known[number].holds):
                    ended_s = ended_s or time.monotonic()
            if not is_live:
                now_s = time.monotonic()
                return {"late_s": now_s - (ended_s or now_s)}
            time.sleep(POLL_S)


def many(count: str, seed: str, *words: str) -> dict[str, float]:
    split = words.index("--")
    uids, argv = [int(word) for word in words[:split]], list(words[split + 1 :])
    random.seed(int(seed))
    cancels: dict[int, float] = {}  # times by job
    submitted: list[int] = []
    cancelled = 0
    ended_s: dict[int, float] = {}  # when a job was first seen not to hold its share
    late_s: dict[int, float] = {}  # from then to the end of its reservation
    most: Counter[int] = Counter()  # live reservations of each job
    begin_s = time.monotonic()
    with simenv.connect(service=os.environ["SERVICE"]) as client:
        last_s = begin_s
        while True:
            live = Counter(int(each.job) for each in jobs.of_cluster(client, CLUSTER))
            known = jobs.listed_jobs()
            now_s = time.monotonic()
            most |= live
            holding = {number for number, job in known.items() if job.holds}
            for number in live:
                if number not in holding:
                    ended_s.setdefault(number, now_s)
            for number in [each for each in ended_s if each not in live and each not in late_s]:
                late_s[number] = now_s - ended_s[number]
            while len(submitted) < int(count) and len(known) < WAITING:
                number = submit(uids, argv)
                known[number] = jobs.SlurmJob(number, "PENDING", "", None, "", {})
                submitted.append(number)
                if random.random() < CANCELLED:
                    cancels[number] = time.monotonic() + random.uniform(*CANCEL_S)
            due = [number for number, at_s in cancels.items() if at_s <= now_s]
            if due:
                subprocess.run(["scancel", *map(str, due)], check=False)
                cancelled += sum(number in known for number in due)
                for number in due:
                    del cancels[number]
            if known or len(submitted) < int(count):
                last_s = now_s
            elif not live or now_s - last_s > LEFT_S:
                break
            time.sleep(POLL_S)
        made = Counter(int(each.job) for each in client.reservations() if each.job)
    return {
        "jobs": len(submitted), "cancelled": cancelled,
        "reserved": sum(number in made for number in submitted), "left": len(live),
        "doubled": sum((most | made)[number] > 1 for number in submitted),
        "late_s": max(late_s.values(), default=0.0), "seconds": time.monotonic() - begin_s,
    }  # fmt: skip


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    figures = watch(int(arguments[0])) if name == "watch" else many(*arguments)
    sys.stdout.write(json.dumps(figures) + "\n")
