// runs: {"101": 1}
OPENQASM 3.0;
include "stdgates.inc";
const int[8] n = 3;
const float angle_of_x = pi;
const bool yes = true;
const uint last = n - 1;
qubit[n] q;
bit[n] c;
rx(angle_of_x) q[0];
rx(angle_of_x) q[last];
c = measure q;
