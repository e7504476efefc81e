"""The service process, one per environment: doors, admission, scheduler, journal, workers, one loop."""
