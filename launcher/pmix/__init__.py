"""PMIx tool interface, in a helper process that can be killed and restarted."""
