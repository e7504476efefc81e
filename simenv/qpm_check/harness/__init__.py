"""How checks are run, and what they report."""
