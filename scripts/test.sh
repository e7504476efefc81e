#!/usr/bin/env bash
# Tests in several processes, then those that failed once more, alone: scripts/test.sh [drills].
# Without a word all but the drills, with it these; slow ones and those for a GPU in neither.
#
# Drills kill, stall and measure patience on a machine that others use too: some of them may fail
# for want of CPU and nothing else. What fails twice, the second time with the machine to itself,
# is broken. More than a few at once are broken too: no second time.
# What failed at first stays in the output, above, and is named at the end.
set -uo pipefail
cd "$(dirname "$0")/.."
python=".venv/bin/python"
failed=".pytest_cache/v/cache/lastfailed"
few=24
case "${1:-}" in
drills) marks="drill" ;;
*) marks="not drill" ;;
esac

# Kept bytecode: each process would otherwise rewrite the assertions of all tests anew.
unset PYTHONDONTWRITEBYTECODE

rm -f "$failed"
"$python" -m pytest -n "${TEST_PROCESSES:-4}" -m "$marks and not slow and not gpu" \
    --durations=0 --durations-min=1
code=$?
[ "$code" -eq 1 ] && [ -f "$failed" ] || exit "$code" # 1: some failed; no other end is tried again

names="$("$python" -c 'import json, sys; print(*json.load(open(sys.argv[1])), sep="\n")' "$failed")"
if [ "$(wc -l <<<"$names")" -gt "$few" ]; then
    echo "more than $few failed: no second time"
    exit "$code"
fi
printf '\nfailed beside others, once more alone:\n%s\n' "$names"
"$python" -m pytest --last-failed --last-failed-no-failures none -m "$marks and not slow and not gpu" || exit
printf '\npassed, but not at once; failed beside others, not alone:\n%s\n' "$names"
