// refused at 4:1: a 'switch' on a constant
OPENQASM 3.0;
include "stdgates.inc";
switch (3) {
  case 3 { }
}
