// refused at 4:1: 'defcal'
OPENQASM 3.0;
include "stdgates.inc";
defcal x $0 { }
