// refused at 5:6: 'durationof'
OPENQASM 3.0;
include "stdgates.inc";
qubit q;
delay[durationof({x q;})] q;
