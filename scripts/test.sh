#!/usr/bin/env bash
# Tests in several processes, then those that failed once more, alone: scripts/test.sh [drills].
# Without a word all but the drills, with it these; slow ones and those for a GPU in neither.
# Of the drills and of what takes long a third, which the commit chooses (the first outside a
# checkout of git); SHARD=0, 1 or 2: this third; SHARD=all: all.
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

commit="$(git rev-parse HEAD 2>/dev/null)" || commit=0
export SHARD="${SHARD:-$((16#${commit:0:7} % 3))}"
echo "shard of what takes long: $SHARD"

# Half a minute of g++, which a test would wait for beside three others; without g++ these skip.
[ "$marks" = drill ] || "$python" -c 'import testbed.host_device as host; host.build_library()' || :

rm -f "$failed"
"$python" -m pytest -n "${TEST_PROCESSES:-4}" -m "$marks and not slow and not gpu and not other_shard" \
    --durations=0 --durations-min=1
code=$?
[ "$code" -eq 1 ] && [ -f "$failed" ] || exit "$code" # 1: some failed; no other end is tried again

names="$("$python" -c 'import json, sys; print(*json.load(open(sys.argv[1])), sep="\n")' "$failed")"
if [ "$(wc -l <<<"$names")" -gt "$few" ]; then
    echo "more than $few failed: no second time"
    exit "$code"
fi
printf '\nfailed beside others, once more alone:\n%s\n' "$names"
"$python" -m pytest --last-failed --last-failed-no-failures none -m "$marks and not slow and not gpu and not other_shard" || exit
printf '\npassed, but not at once; failed beside others, not alone:\n%s\n' "$names"
