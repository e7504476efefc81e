"""ClaimComparison of measured quantities with the claims of a calibration snapshot."""
