"""Acceptance of fitted devices: gain over the snapshot, and the share of the fit that is kept."""
