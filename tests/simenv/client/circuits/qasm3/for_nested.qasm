// runs: {"110110": 1}
OPENQASM 3.0;
include "stdgates.inc";
const uint n = 3;
qubit[2 * n] q;
bit[2 * n] c;
for uint i in [0:1] {
  for uint j in [1:n - 1] {
    x q[n * i + j];
  }
}
c = measure q;
