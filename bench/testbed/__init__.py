"""Stand-ins that benchmarks share with the tests: attackers, hosts of a cluster, and a GPU."""
