"""States over several GPUs: one for each MPI rank."""
