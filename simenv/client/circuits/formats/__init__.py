"""Text and file formats of circuits: OpenQASM 2 and 3, QIR, and objects of Cirq and stim."""
