OPENQASM 2.0;
include "qelib1.inc";
// 22 qubits, nothing measured: its statevector of 64 MiB goes into a file
qreg q[22];
h q;
ry(0.3) q[0];
cx q[0], q[21];
