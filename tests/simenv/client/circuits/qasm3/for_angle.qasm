// runs: {"1": 1}
OPENQASM 3.0;
include "stdgates.inc";
qubit q;
bit c;
for uint k in [1:2:7] {
  rx(k * pi / 16) q;
}
c = measure q;
