// runs: {"11": 1}
OPENQASM 3.0;
include "stdgates.inc";
gate turn(a, b) p, r {
  rx(a / 2) p;
  rx(a / 2) p;
  rx(b) r;
}
qubit[2] q;
bit[2] c;
turn(pi, pi) q[0], q[1];
gphase(pi / 4);
c = measure q;
