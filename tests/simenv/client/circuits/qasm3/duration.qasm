// refused at 4:1: a variable of type 'duration'
OPENQASM 3.0;
include "stdgates.inc";
duration d = 100ns;
