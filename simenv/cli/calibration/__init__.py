"""`simenv certify`, `calibrate` and `score`: devices against measurements."""
