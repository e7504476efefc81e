"""Number and places of workers, and of jobs of the site by which nodes come."""
