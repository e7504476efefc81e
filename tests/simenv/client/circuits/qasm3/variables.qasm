// runs: {"1101": 1}
OPENQASM 3.0;
include "stdgates.inc";
bit[4] c;
qubit q;
uint[4] a = 7;
uint[8] b;
bool flag = true;
b = 200;
a = a + 6;
flag = flag && (b > 199);
if (flag) {
  c = bit[4](a);
}
bit d;
d = measure q;
