// runs: {"10 010": 1}
OPENQASM 3.0;
include "stdgates.inc";
qubit[2] q;
bit[3] c;
bit[2] d;
c = "010";
switch (c) {
  case 0, 1 { x q[0]; }
  case 2 { x q[1]; }
  default { x q; }
}
d = measure q;
