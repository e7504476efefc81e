"""How many workers each pool has, and on which nodes."""
