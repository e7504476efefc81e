// The kernels as functions of a library, one call a launch: what host_device.py loads.
#include "kernels.cuh"

extern "C" void skip_barrier(const char* file, int line) {
    strncpy(host::skipped_file, file, sizeof host::skipped_file - 1);
    host::skipped_line = line;
}
extern "C" void read_tally(uint64_t* into) {
    memcpy(into, &host::tally, sizeof host::tally);
    host::tally = {};
}
