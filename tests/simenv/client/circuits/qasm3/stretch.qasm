// refused at 4:1: a variable of type 'stretch'
OPENQASM 3.0;
include "stdgates.inc";
stretch s;
