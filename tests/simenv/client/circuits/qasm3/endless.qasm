// endless
OPENQASM 3.0;
include "stdgates.inc";
qubit q;
bit c;
while (true) {
  h q;
}
c = measure q;
