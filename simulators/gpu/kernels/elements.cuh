// Kernels that change amplitudes one by one, or few at a time.
#pragma once
#include "common.cuh"

// Set to 0 the amplitudes whose index has a bit outside `live`: no sweep has written them.
template <class T> __device__ __forceinline__ void clear_outside(cplx<T>* state, u64 size, u64 live) {
    const u64 k = u64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (k < size && k & ~live) store_global(state + k, cplx<T>{T(0), T(0)});
}

// State `blockIdx.x` of 2^bits amplitudes, of several, becomes |0...0>; or its first amplitude alone is
// set, where sweeps write the others.
template <class T> __device__ __forceinline__ void set_zero(cplx<T>* states, u64 stride, u64 count) {
    cplx<T>* state = states + blockIdx.x * stride;
    for (u64 k = threadIdx.x; k < count; k += blockDim.x) store_global(state + k, cplx<T>{k ? T(0) : T(1), T(0)});
}

// `into` becomes the part of `state` where the qubit has that outcome, times `factor`. is_moved: the
// qubit ends in |0>. Both may be the same state. A thread has a pair.
template <class T>
__device__ __forceinline__ void project(const cplx<T>* state, cplx<T>* into, u64 pairs, int qubit, int outcome, double factor, int is_moved) {
    const u64 pair = u64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (pair >= pairs) return;
    const u64 bit = 1ull << qubit, i = insert_zeros(pair, bit);
    const cplx<double> a = widened(load_global(state + (outcome ? i | bit : i)));
    const bool is_one = outcome && !is_moved;
    store_global(into + (is_one ? i : i | bit), cplx<T>{T(0), T(0)});
    store_global(into + (is_one ? i | bit : i), narrowed<T>(cplx<double>{a.x * factor, a.y * factor}));
}

// into[k] = the amplitude first + k of those whose index has `value` under `mask`, in ascending order.
template <class T>
__device__ __forceinline__ void pack(const cplx<T>* state, cplx<T>* into, u64 first, u64 count, u64 mask, u64 value) {
    const u64 k = u64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (k < count) store_global(into + k, load_global(state + (insert_zeros(first + k, mask) | value)));
}

// The same amplitudes become those of `from`.
template <class T>
__device__ __forceinline__ void unpack(const cplx<T>* from, cplx<T>* state, u64 first, u64 count, u64 mask, u64 value) {
    const u64 k = u64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (k < count) store_global(state + (insert_zeros(first + k, mask) | value), load_global(from + k));
}

// A matrix on `qubits` qubits, in place; matrix: complex, row by row. offsets[j]: the index bits of
// basis state j of the qubits, all of them under `mask`. A block of threads has 2^group_bits units of
// 2^qubits amplitudes, in shared memory.
template <class T>
__device__ __forceinline__ void dense(cplx<T>* state, int qubits, u64 mask, const u64* offsets, const double* matrix, int group_bits) {
    SHARED_MEMORY(raw);
    cplx<double>* units = reinterpret_cast<cplx<double>*>(raw);
    const u32 size = 1u << qubits, count = size << group_bits;
    const u64 first = u64(blockIdx.x) << group_bits;
    for (u32 e = threadIdx.x; e < count; e += blockDim.x)
        units[e] = widened(load_global(state + (insert_zeros(first + (e >> qubits), mask) | offsets[e & (size - 1)])));
    __syncthreads();  // all are read before any is written
    for (u32 e = threadIdx.x; e < count; e += blockDim.x) {
        const cplx<double>* unit = units + (e & ~(size - 1));
        const cplx<double>* row = reinterpret_cast<const cplx<double>*>(matrix) + u64(e & (size - 1)) * size;
        cplx<double> sum = {0.0, 0.0};
        for (u32 j = 0; j < size; ++j) sum = mul_add(row[j], unit[j], sum);
        store_global(state + (insert_zeros(first + (e >> qubits), mask) | offsets[e & (size - 1)]), narrowed<T>(sum));
    }
}
