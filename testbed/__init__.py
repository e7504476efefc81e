"""What tests and benchmarks share: attackers, hosts, servers, a GPU's kernels on the host, devices
of known noise, a site. It imports neither of them."""
