#!/usr/bin/env bash
# Writes the files of others in the web page anew, at pinned versions: scripts/page.sh (needs npm).
# uPlot draws the page's time series and ships with it; axe-core checks the page in tests.
set -euo pipefail
cd "$(dirname "$0")/.."
static=simenv/gateway/page/static
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT

get() { # NAME VERSION SHA256: the archive of a package of npm, unpacked into $folder/NAME
    (cd "$folder" && npm pack --silent --ignore-scripts "$1@$2" >/dev/null)
    echo "$3  $folder/$1-$2.tgz" | sha256sum --check --quiet
    mkdir "$folder/$1"
    tar -xzf "$folder/$1-$2.tgz" -C "$folder/$1" --strip-components=1
}

get uplot 1.6.32 4b8a8191e425658e3ea8c8c1314b0fc679c861ee3a1af2b20c7b16ba50b5133d
{ # the minified build is a script that sets a variable: a last line makes a module of it
    cat "$folder/uplot/dist/uPlot.iife.min.js"
    printf '\nexport default uPlot;\n'
} >"$static/uplot.js"
cp "$folder/uplot/dist/uPlot.min.css" "$static/uplot.css"
{
    printf 'uplot.js and uplot.css are uPlot 1.6.32 (https://github.com/leeoniya/uPlot):\n\n'
    cat "$folder/uplot/LICENSE"
} >"$static/NOTICE.txt"

get axe-core 4.14.1 e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745
cp "$folder/axe-core/axe.min.js" tests/support/axe.min.js # MPL 2.0, as its first lines say
sha256sum --check --quiet <<EOF
8301d1a4fcc08355d4ff7e8c87cc4a4e13cc4da93ba50a20816005488c0c5f6e  $static/uplot.js
df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04  $static/uplot.css
29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c  tests/support/axe.min.js
EOF
