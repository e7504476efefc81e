#!/bin/sh
# A launch agent for an environment that runs in a container: the command's programs are those of the
# image, so it is run inside the image on the other host too.
#
#   export SIMENV_IMAGE=$PWD/simenv.sif SIMENV_LAUNCH_AGENT=$PWD/examples/hpc/apptainer_agent.sh
host=$1
shift
quoted=$(printf '%s' "$*" | sed "s/'/'\\\\''/g")
exec ssh -x -o BatchMode=yes "$host" "apptainer exec '$SIMENV_IMAGE' /bin/sh -c '$quoted'"
