#!/usr/bin/env bash
# All tests but the slow ones, in several processes; then those that failed once more, alone.
#
# Drills kill, stall and measure patience on a machine that others use too: a few of them may fail
# for want of CPU and nothing else. What fails twice, the second time with the machine to itself,
# is broken. More than a few at once are broken too: no second time.
# What failed at first stays in the output, above, and is named at the end.
set -uo pipefail
cd "$(dirname "$0")/.."
python=".venv/bin/python"
failed=".pytest_cache/v/cache/lastfailed"
few=8

# Kept bytecode: each process would otherwise rewrite the assertions of all tests anew.
unset PYTHONDONTWRITEBYTECODE

rm -f "$failed"
"$python" -m pytest -n "${TEST_PROCESSES:-4}" -m "not slow and not gpu" --durations=20 "$@"
code=$?
[ "$code" -eq 1 ] && [ -f "$failed" ] || exit "$code" # 1: some failed; no other end is tried again

names="$("$python" -c 'import json, sys; print(*json.load(open(sys.argv[1])), sep="\n")' "$failed")"
if [ "$(wc -l <<<"$names")" -gt "$few" ]; then
    echo "more than $few failed: no second time"
    exit "$code"
fi
printf '\nfailed beside others, once more alone:\n%s\n' "$names"
"$python" -m pytest --last-failed --last-failed-no-failures none -m "not slow and not gpu" || exit
printf '\npassed, but not at once; failed beside others, not alone:\n%s\n' "$names"
