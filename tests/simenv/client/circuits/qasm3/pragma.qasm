// refused at 4:1: 'pragma'
OPENQASM 3.0;
include "stdgates.inc";
pragma anything at all
