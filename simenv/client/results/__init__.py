"""Results: decoding, bitstrings, large arrays, export."""
