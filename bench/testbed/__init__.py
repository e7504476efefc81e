"""Stand-ins that benchmarks share with the tests: attackers, hosts, a GPU, a device, a site."""
