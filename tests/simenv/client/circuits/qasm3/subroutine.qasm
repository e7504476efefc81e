// refused at 4:1: a subroutine ('def')
OPENQASM 3.0;
include "stdgates.inc";
def flip(qubit a) {
  x a;
}
