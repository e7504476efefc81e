"""One worker over several MPI ranks."""
