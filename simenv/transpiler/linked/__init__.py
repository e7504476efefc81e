"""Circuits for devices that consist of several QPUs: partition, remote gates, placement."""
