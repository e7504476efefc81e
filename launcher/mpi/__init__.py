"""One mpirun for each worker: Open MPI, MPICH and Intel MPI."""
