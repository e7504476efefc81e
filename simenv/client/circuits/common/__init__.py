"""What encoders and parsers share: names, limits, parameters."""
