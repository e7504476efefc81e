// runs: {"11": 1}
OPENQASM 3.0;
include "stdgates.inc";
qubit[2] q;
bit[2] c;
uint[4] n = 0;
while (n < 5) {
  x q;
  n += 1;
}
c = measure q;
