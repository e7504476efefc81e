"""Whether a fitted device is better than its snapshot, and how much of the fit is kept."""
