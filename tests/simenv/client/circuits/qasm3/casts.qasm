// runs: {"1 0011": 1}
OPENQASM 3.0;
include "stdgates.inc";
qubit q;
bit[4] c;
bit[1] d;
uint[8] a = 19;
c = bit[4](uint[4](a));
x q;
if (bool(a)) {
  d[0] = measure q;
}
