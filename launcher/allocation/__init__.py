"""Nodes of the job or of the machine: Slurm, PBS, a hostfile, --hosts, or this node."""
