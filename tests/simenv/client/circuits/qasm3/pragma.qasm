// refused at 4:1: the pragma 'anything at all'
OPENQASM 3.0;
include "stdgates.inc";
pragma anything at all
