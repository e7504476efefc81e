"""Allocation: nodes from Slurm, PBS, a hostfile, --hosts, or this machine."""
