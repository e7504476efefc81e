"""The service process, one per environment: doors, admission, journal, workers, one loop."""
