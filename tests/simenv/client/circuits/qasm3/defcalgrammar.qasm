// refused at 4:1: 'defcalgrammar'
OPENQASM 3.0;
include "stdgates.inc";
defcalgrammar "openpulse";
