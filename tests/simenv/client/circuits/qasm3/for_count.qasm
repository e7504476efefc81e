// runs: {"1": 1}
OPENQASM 3.0;
include "stdgates.inc";
qubit q;
bit c;
for uint unused in [1:7] {
  x q;
}
c = measure q;
