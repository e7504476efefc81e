"""Commands of administrators: pools, keys, limits, policies, storage, QPM plugins."""
