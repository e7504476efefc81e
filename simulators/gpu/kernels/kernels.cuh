// Entry points. KERNEL(name, threads, blocks, call, parameters...): `threads` of a block at most, and
// so many blocks at once in a multiprocessor. The macro MODULE chooses one of the modules of
// device.py, so that one precision does not wait for the compilation of the other; the host has all.
#include "common.cuh"
#include "elements.cuh"
#include "gate_by_gate.cuh"
#include "pauli.cuh"
#include "reverse.cuh"
#include "small.cuh"
#include "sums.cuh"
#include "sweep.cuh"

#define MODULE_SWEEP_DOUBLE 1
#define MODULE_SWEEP_SINGLE 2
#define MODULE_STATES_DOUBLE 3
#define MODULE_STATES_SINGLE 4
#define MODULE_SWEEP_BATCH_DOUBLE 5
#define MODULE_SWEEP_BATCH_SINGLE 6
#define MODULE_LINES 7

#ifdef ON_DEVICE
#define KERNEL(name, threads, blocks, call, ...) \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(__VA_ARGS__) { call; }
#define HAS(module) (MODULE == module)
#else
#define KERNEL(name, threads, blocks, call, ...) \
    extern "C" void name(unsigned grid, unsigned block, size_t shared, unsigned order, int is_traced, __VA_ARGS__) { \
        host::launch(grid, block, shared, order, is_traced != 0, [=] { call; }); \
    }
#define HAS(module) true
#endif

#define SWEEP(T, suffix, is_batch, blocks) \
    KERNEL(sweep_##suffix, 256, blocks, (sweep<T, 4, is_batch>(states, terms, numbers, exact, known, stride, numbers_stride)), cplx<T>* states, const u64* terms, \
           const T* numbers, const double* exact, u64 known, u64 stride, u64 numbers_stride)

#define STATES(T, suffix) \
    KERNEL(clear_outside_##suffix, 256, 1, clear_outside<T>(state, size, live), cplx<T>* state, u64 size, u64 live) \
    KERNEL(set_zero_##suffix, 256, 1, set_zero<T>(states, stride, count), cplx<T>* states, u64 stride, u64 count) \
    KERNEL(pack_##suffix, 256, 1, pack<T>(state, into, first, count, mask, value), const cplx<T>* state, cplx<T>* into, u64 first, u64 count, u64 mask, \
           u64 value) \
    KERNEL(unpack_##suffix, 256, 1, unpack<T>(from, state, first, count, mask, value), const cplx<T>* from, cplx<T>* state, u64 first, u64 count, u64 mask, \
           u64 value) \
    KERNEL(project_##suffix, 256, 1, project<T>(state, into, pairs, qubit, outcome, factor, is_moved), const cplx<T>* state, cplx<T>* into, u64 pairs, \
           int qubit, int outcome, double factor, int is_moved) \
    KERNEL(dense_##suffix, 256, 1, dense<T>(state, qubits, mask, offsets, matrix, group_bits), cplx<T>* state, int qubits, u64 mask, const u64* offsets, \
           const double* matrix, int group_bits) \
    KERNEL(block_sums_##suffix, 256, 1, block_sums<T>(what, state, other, block_bits, qubit, turn_x, turn_y, sums), int what, const cplx<T>* state, \
           const cplx<T>* other, int block_bits, int qubit, double turn_x, double turn_y, double* sums) \
    KERNEL(outcome_sums_##suffix, 256, 1, outcome_sums<T>(state, mask, part_bits, rest_bits, outputs, sums), const cplx<T>* state, u64 mask, int part_bits, \
           int rest_bits, u64 outputs, double* sums) \
    KERNEL(locate_##suffix, 256, 1, locate<T>(state, block_bits, hits, edges, begins, draws, found), const cplx<T>* state, int block_bits, const i64* hits, \
           const double* edges, const i64* begins, const double* draws, i64* found) \
    KERNEL(pauli_sums_##suffix, 256, 1, pauli_sums<T>(states, block_bits, x, strings, zs, factors, sums), const cplx<T>* states, int block_bits, u64 x, \
           int strings, const u64* zs, const double* factors, double* sums) \
    KERNEL(apply_pauli_sum_##suffix, 256, 1, apply_pauli_sum<T>(state, into, size, strings, xs, zs, factors), const cplx<T>* state, cplx<T>* into, \
           u64 size, int strings, const u64* xs, const u64* zs, const double* factors) \
    KERNEL(small_steps_##suffix, 256, 1, small_steps<T>(states, n, steps, table, matrices, matrices_stride, is_zero), cplx<T>* states, int n, int steps, \
           const u64* table, const double* matrices, u64 matrices_stride, int is_zero) \
    KERNEL(reverse_pass_##suffix, 256, 1, reverse_pass<T>(state, other, width, tile, steps, table, matrices, tiles_each, columns, sums), cplx<T>* state, \
           cplx<T>* other, int width, u64 tile, int steps, const u64* table, const double* matrices, int tiles_each, int columns, double* sums)

#define LINES(T, suffix) \
    KERNEL(sample_lines_##suffix, 256, 2, \
           sample_lines<T>(ints, reals, entries, ends, origin, first, last, blocks, seed, binding, own, own_size, tensors, stride, kept_size, is_shared, out), \
           const i64* ints, const double* reals, const i64* entries, const i64* ends, u64 origin, u64 first, u64 last, int blocks, u64 seed, u64 binding, \
           double* own, u64 own_size, cplx<T>* tensors, u64 stride, u64 kept_size, int is_shared, unsigned char* out)

#if HAS(MODULE_SWEEP_DOUBLE)
SWEEP(double, double, false, 2)
#endif
#if HAS(MODULE_SWEEP_SINGLE)
SWEEP(float, single, false, 3)
#endif
#if HAS(MODULE_SWEEP_BATCH_DOUBLE)
SWEEP(double, batch_double, true, 2)
#endif
#if HAS(MODULE_SWEEP_BATCH_SINGLE)
SWEEP(float, batch_single, true, 2)
#endif
#if HAS(MODULE_STATES_DOUBLE)
STATES(double, double)
KERNEL(small_counts, 256, 3, evolve_and_count(n, steps, table, matrices, bound, own, shots, seed, first_binding, which, records, counts, sizes), int n,
       int steps, const u64* table, const double* matrices, const double* bound, int own, int shots, u64 seed, u64 first_binding, const u32* which,
       int records, u32* counts, u32* sizes)
KERNEL(gather_counts, 256, 1, gather_nonzero(counts, records, begins, table, width, outcomes, gathered), const u32* counts, int records, const u32* begins,
       const unsigned char* table, int width, unsigned char* outcomes, u32* gathered)
#endif
#if HAS(MODULE_STATES_SINGLE)
STATES(float, single)
#endif
#if HAS(MODULE_LINES)
LINES(double, double)
LINES(float, single)
#endif
