"""Statevector on a GPU: all amplitudes in the memory of one device."""
