// refused at 4:1: 'cal'
OPENQASM 3.0;
include "stdgates.inc";
cal { }
