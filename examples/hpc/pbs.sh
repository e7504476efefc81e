#!/bin/bash
#PBS -N simenv
#PBS -l select=2:ncpus=4:mpiprocs=1
#PBS -l walltime=00:10:00
# The same under PBS: nodes come from PBS_NODEFILE, and daemons reach them by ssh, or by the agent
# that the site prefers (SIMENV_LAUNCH_AGENT; see docs/guides/pools.md).
#
#   qsub examples/hpc/pbs.sh

cd "$PBS_O_WORKDIR" || exit
simenv up --pool main:min=1,max=8 || exit
trap 'simenv down --now' EXIT
simenv exec -- python examples/sweep.py
