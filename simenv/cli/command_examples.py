"""Examples of every command.

The help of a command and its manual page show them, and tests/simenv/cli/test_command_examples.py
runs them, those of each command in an empty folder of its own with a new home. Invariant: the lines
of one command are typed one after the other, and need no file that they do not write.
"""

from __future__ import annotations

from typing import NamedTuple

UP = "an environment up (simenv up)"
GATEWAY = "an environment and its gateway up (simenv up --gateway 127.0.0.1:0)"
SLURM = "Slurm on this host"
QFW = "QFw in the folder of QFW_PATH"


class Examples(NamedTuple):
    """Lines of a shell. `needs`: what must be there before; "": an installation of simenv."""

    lines: tuple[str, ...]
    needs: str = ""


_FILES = "simenv examples  # writes the folder examples"
_TASK = "task=$(simenv submit examples/bell.qasm --shots 4096)"
_DEVICE = "superconducting-lattice"


def _of(text: str, needs: str = "") -> Examples:
    return Examples(tuple(text.strip().splitlines()), needs)


EXAMPLES: dict[str, Examples] = {
    "": _of(f"""
{_FILES}
simenv run examples/bell.qasm
simenv run examples/bell.qasm --device {_DEVICE}"""),
    "run": _of(f"""
{_FILES}
simenv run examples/bell.qasm --shots 4096 --device {_DEVICE} --save bell.json
simenv run - --json < examples/bell.qasm
simenv run examples/atoms.json --seed 7"""),
    "submit": _of(f"""
{_FILES}
{_TASK}
simenv result $task
simenv submit examples/bell.qasm --after $task --task-name second""", UP),
    "result": _of(f"""
{_FILES}
{_TASK}
simenv result $task --timeout 60
simenv result $task --save bell.json""", UP),
    "cancel": _of(f"""
{_FILES}
{_TASK}
simenv cancel $task
simenv cancel --state QUEUED""", UP),
    "explain": _of(f"""
{_FILES}
simenv explain examples/bell.qasm
simenv explain examples/bell.qasm --device {_DEVICE}
simenv explain examples/bell.qasm --device {_DEVICE} --ledger"""),
    "simulate": _of(f"""
{_FILES}
simenv simulate examples/bell.qasm --shots 4096
simenv simulate examples/bell.qasm --engine mps --seed 7 --save bell.json"""),
    "exec": _of("""
simenv exec -- python -c 'import simenv; print(*simenv.connect().pools())'
simenv exec --run-name first --workers 1 -- simenv status"""),
    "up": _of("""
simenv up
simenv up --name lab --pool sv:engine=statevector,workers=1 --pool mps:engine=mps,workers=1
simenv down --all"""),
    "down": _of("""
simenv up
simenv down
simenv down --all"""),
    "status": _of("""
simenv status
simenv status --json""", UP),
    "environments": _of("""
simenv environments
simenv environments -o name,state"""),
    "logs": _of("""
simenv logs
simenv logs main-0 --lines 20""", UP),
    "demo": _of("""
simenv demo --out pictures
simenv demo --workers 1 --json"""),
    "examples": _of("""
simenv examples
simenv examples more"""),
    "doctor": _of("""
simenv doctor || echo repair it
simenv doctor --json || echo repair it"""),
    "gateway": _of("""
simenv up --gateway 127.0.0.1:0
simenv gateway status
simenv gateway tokens list
simenv down"""),
    "gateway status": _of("""
simenv gateway status
simenv gateway status --json""", GATEWAY),
    "gateway env": _of("""
simenv gateway env
eval "$(simenv gateway env --expires 8h)"
""", GATEWAY),
    "gateway tokens": _of("""
simenv gateway tokens add --purpose notebook
simenv gateway tokens list""", GATEWAY),
    "gateway tokens list": _of("""
simenv gateway tokens list
simenv gateway tokens list -o number,user,expires""", GATEWAY),
    "gateway tokens add": _of("""
simenv gateway tokens add --purpose notebook --expires 7d
simenv gateway tokens add --user ana""", GATEWAY),
    "gateway tokens revoke": _of("""
simenv gateway tokens add --purpose notebook
simenv gateway tokens add --purpose course
simenv gateway tokens revoke $(simenv gateway tokens list -o number --no-header | tail -n 1)
simenv gateway tokens revoke $(simenv gateway tokens list -o number --no-header | tail -n 1) --json
""", GATEWAY),
    "web": _of("""
simenv web
simenv web --json""", GATEWAY),
    "help": _of("""
simenv help run
simenv help devices import
simenv help man man1"""),
    "certify": _of(f"""
simenv certify {_DEVICE} --qubits 0-1 --effort 0.2
simenv certify {_DEVICE} --qubits 0 --effort 0.2 --out measured""", UP),
    "calibrate": _of(f"""
{_FILES}
simenv calibrate examples/counts.jsonl --device {_DEVICE} --out fitted
simenv calibrate examples/counts.jsonl --device {_DEVICE} --out again --force --json"""),
    "score": _of(f"""
{_FILES}
simenv score examples/counts.jsonl --device {_DEVICE}
simenv score examples/counts.jsonl --device {_DEVICE} --noise aer"""),
    "queue": _of("""
simenv queue
simenv queue --done --since 1h
simenv queue -o task,state,ends_in""", UP),
    "pools": _of("""
simenv pools
simenv pools --json""", UP),
    "workers": _of("""
simenv workers
simenv workers --pool main -o worker,state,task""", UP),
    "nodes": _of("""
simenv nodes
simenv nodes -o node,slots,mem""", UP),
    "devices": _of("""
simenv devices
simenv devices show trapped-ions
simenv devices -o name,qubits""", UP),
    "devices import": _of(f"""
{_FILES}
simenv devices import examples/calibration.json --name mine
simenv devices import examples/calibration.json --name again --format cunqa --json
simenv devices show mine"""),
    "devices new": _of("""
simenv devices new small --qubits 5 --t1-us 120 --duration-2q-ns 68 --error-2q 0.006
simenv devices new star --couplings 0-1,0-2,0-3 --error-2q 0.006,0.008,0.005
simenv devices new mine --lattice heavy-hex:3x8 --template --file mine.json
simenv devices import mine.json"""),
    "devices encode": _of("""
simenv devices encode superconducting-square --distance 3 --qubits 1 --shots 500 --name l3
simenv devices encode trapped-ions --distance 3 --qubits 1 --shots 500 --name ions3 --json"""),
    "devices link": _of("""
simenv devices link a=ideal b=trapped-ions --name duo --link a.1-b.0:fidelity=0.97,rate_hz=1e5
simenv devices show duo
simenv devices link a=trapped-ions b=trapped-ions --link a.0-b.0:IZ=0.02 --name pair --json"""),
    "devices layers": _of(f"""
{_FILES}
simenv devices new pairs --qubits 4
simenv devices layers pairs examples/noise_learner.json --date 2026-02-26
simenv devices layers pairs examples/noise_learner.json --to learned --json
simenv devices show learned"""),
    "devices refresh": _of(f"""
{_FILES}
printf '[devices.mine]\\nrefresh = "cat %s"\\n' "$PWD/examples/calibration.json" > simenv.toml
simenv up --config simenv.toml
simenv devices refresh mine
simenv devices refresh mine --json
simenv down"""),
    "devices show": _of(f"""
simenv devices show {_DEVICE}
simenv devices show {_DEVICE} --qubit 3""", UP),
    "devices remove": _of("""
simenv devices new small --qubits 2
simenv devices new other --qubits 2
simenv devices remove small
simenv devices remove other --json"""),
    "history": _of("""
simenv history
simenv history --since 1d --state FAILED --csv > failed.csv
simenv history --series queue --step 1m""", UP),
    "trace": _of(f"""
{_FILES}
{_TASK}
simenv result $task
simenv trace $task
simenv trace $task --json""", UP),
    "profile": _of(f"""
{_FILES}
simenv exec --run-name first -- simenv run examples/bell.qasm
simenv profile
simenv profile --run-name first --json""", UP),
    "events": _of("""
simenv events
simenv events --since 1h --kind worker""", UP),
    "usage": _of("""
simenv usage --since 7d
simenv usage --by user,device --csv > usage.csv""", UP),
    "shares": _of("""
simenv shares
simenv shares --json""", UP),
    "receipt": _of(f"""
{_FILES}
simenv run examples/bell.qasm --task-name bell
simenv receipt $(simenv history --limit 1 -o task --no-header)
simenv receipt $(simenv history --limit 1 -o task --no-header) --json""", UP),
    "scale": _of("""
simenv scale main 1
simenv scale main --min 1 --max 2""", UP),
    "drain": _of("""
simenv drain all --at 02:00 --for 2h --every 7d --reason update
simenv drain $(simenv nodes -o node --no-header) --reason fan
simenv undrain $(simenv nodes -o node --no-header)""", UP),
    "undrain": _of("""
simenv drain $(simenv nodes -o node --no-header) --reason fan
simenv undrain $(simenv nodes -o node --no-header)
simenv drain $(hostname) --reason disk
simenv undrain $(hostname)""", UP),
    "calendar": _of("""
simenv drain all --at 02:00 --for 2h --reason update
simenv calendar
simenv calendar --json""", UP),
    "calendar remove": _of("""
simenv drain all --at 02:00 --for 2h --reason update
simenv drain all --at 04:00 --for 1h --reason disk
simenv calendar remove $(simenv calendar -o number --no-header | tail -n 1)
simenv calendar remove $(simenv calendar -o number --no-header | tail -n 1) --json""", UP),
    "policy": _of("""
simenv policy
simenv policy queue main fair_share""", UP),
    "policy queue": _of("""
simenv policy queue main fifo
simenv policy queue all ordered --keys priority,shortest
simenv policy queue all priority""", UP),
    "policy admission": _of("""
simenv policy admission main rate --rate 100 --span-s 60
simenv policy admission all unlimited""", UP),
    "accounts": _of("""
simenv accounts add physics --add-user ana --share 2
simenv accounts""", UP),
    "accounts list": _of("""
simenv accounts list
simenv accounts list --json""", UP),
    "accounts add": _of("""
simenv accounts add chemistry --add-user ana --budget-slot-h 500
simenv accounts add catalysis --parent chemistry max_queued_tasks=1000""", UP),
    "accounts set": _of("""
simenv accounts add biology
simenv accounts set biology --add-user ben --share 3
simenv accounts set biology max_queued_tasks=0""", UP),
    "accounts move": _of("""
simenv accounts add science
simenv accounts add geology
simenv accounts move geology science
simenv accounts move geology -""", UP),
    "accounts remove": _of("""
simenv accounts add trial
simenv accounts add course
simenv accounts remove trial
simenv accounts remove course --json""", UP),
    "qos": _of("""
simenv qos set urgent --priority 100 --usage-factor 2
simenv qos""", UP),
    "qos list": _of("""
simenv qos list
simenv qos list --json""", UP),
    "qos set": _of("""
simenv qos set batch --preempt --usage-factor 0.5
simenv qos set batch max_queued_tasks=1000""", UP),
    "qos remove": _of("""
simenv qos set trial
simenv qos set course
simenv qos remove trial
simenv qos remove course --json""", UP),
    "admin": _of("""
simenv admin check
simenv admin backup simenv.tar""", UP),
    "admin backup": _of("""
simenv admin backup simenv.tar
mkdir backups
simenv admin backup backups --keep 7""", UP),
    "admin restore": _of("""
simenv up
simenv admin backup simenv.tar
simenv admin restore simenv.tar --name copy
simenv admin restore simenv.tar --name second --up
simenv down --all"""),
    "admin check": _of("""
simenv admin check
simenv admin check --json""", UP),
    "admin upgrade": _of("""
simenv up
simenv admin upgrade
simenv admin upgrade --drain 5 --backup backups
simenv down"""),
    "limits": _of("""
simenv limits
simenv limits --json""", UP),
    "limits set": _of("""
simenv keys add ana --out ana.simenv
simenv limits set ana max_queued_tasks=1000 max_kept_bytes=2GiB
simenv limits set ana max_queued_tasks=2000 --json
simenv limits --owner ana""", UP),
    "limits reset": _of("""
simenv keys add ben --out ben.simenv
simenv limits set ben max_queued_tasks=1000
simenv limits reset ben
simenv limits reset ben --json""", UP),
    "keys": _of("""
simenv keys add carla --out carla.simenv
simenv keys list""", UP),
    "keys add": _of("""
simenv keys add dora --out dora.simenv
simenv keys add ci --expires 30d --out ci.simenv
simenv --service dora.simenv status""", UP),
    "keys list": _of("""
simenv keys list
simenv keys list --json""", UP),
    "keys revoke": _of("""
simenv keys add emil --out emil.simenv
simenv keys add gina --out gina.simenv
simenv keys revoke emil
simenv keys revoke gina --json""", UP),
    "keys rotate": _of("""
simenv keys add flora --out flora.simenv
simenv keys rotate flora --out flora.simenv --overlap 10m
simenv --service flora.simenv keys rotate
simenv --service flora.simenv status""", UP),
    "prune": _of("""
simenv prune --older-than 7d --dry-run
simenv prune --older-than 30d""", UP),
    "qpm": _of("""
simenv qpm check --list
simenv qpm check inprocess --only 'polling.*'"""),
    "qpm check": _of("""
simenv qpm check --list
simenv qpm check inprocess --only 'polling.*' --junit verdicts.xml"""),
    "qpm diff": _of(f"""
{_FILES}
simenv up --name two --pool one:workers=1 --pool other:workers=1
simenv qpm diff one other examples/bell.qasm --name two
simenv qpm diff one other examples/bell.qasm --shots 4096 --all --name two
simenv down --name two"""),
    "qfw": _of("""
simenv qfw path
simenv qfw path --export"""),
    "qfw install": _of("""
simenv qfw install
simenv qfw install $QFW_PATH --pool main""", QFW),
    "qfw check": _of("""
simenv qfw install
simenv qfw check || echo repair it
simenv qfw check $QFW_PATH --json || echo repair it""", QFW),
    "qfw uninstall": _of("""
simenv qfw install
simenv qfw uninstall
simenv qfw uninstall $QFW_PATH --json""", QFW),
    "qfw path": _of("""
simenv qfw path
eval "$(simenv qfw path --export)"
"""),
    "qpi": _of("""
simenv qpi build qpi
simenv qpi flags qpi"""),
    "qpi build": _of("""
simenv qpi build qpi
CC=gcc simenv qpi build qpi"""),
    "qpi flags": _of("""
simenv qpi build qpi
simenv qpi flags qpi
echo "cc app.c -o app $(simenv qpi flags qpi)"
"""),
    "slurm": _of("""
simenv slurm build /opt/simenv
simenv slurm status""", SLURM),
    "slurm build": _of("""
simenv slurm build /opt/simenv
simenv slurm build /opt/simenv --include /usr/local/slurm/include""", SLURM),
    "slurm install": _of("""
simenv slurm install --service munge:OWNER@HOST:7481/NAME --plugin /opt/simenv/simenv_spank.so
simenv slurm install --service munge:OWNER@HOST:7481/NAME --conf /etc/slurm --cluster NAME""",
        SLURM),
    "slurm reserve": _of("""
simenv slurm reserve $SLURM_JOB_ID --qpu main:2
simenv slurm reserve $SLURM_JOB_ID --qpu main:1 --timeout 5""", SLURM),
    "slurm env": _of("""
eval "$(simenv slurm env --qpu main:2)"
simenv slurm env --qpu main:2 --job 42 --plain""", SLURM),
    "slurm release": _of("""
simenv slurm release $SLURM_JOB_ID
simenv slurm release $SLURM_JOB_ID --json""", SLURM),
    "slurm sync": _of("""
simenv slurm sync
simenv slurm sync --every 30 --pool main""", SLURM),
    "slurm status": _of("""
simenv slurm status
simenv slurm status --json""", SLURM),
}  # fmt: skip
