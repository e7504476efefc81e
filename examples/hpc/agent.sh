#!/bin/sh
# A launch agent: called as AGENT HOST COMMAND..., it runs the command in a shell on that host, as ssh
# does, and ends when the command does. This one brings along what a login shell of the site would
# have set up.
#
#   export SIMENV_LAUNCH_AGENT=$PWD/examples/hpc/agent.sh
host=$1
shift
exec ssh -x -o BatchMode=yes "$host" "export TMPDIR=${TMPDIR:-/tmp}; $*"
