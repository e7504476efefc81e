// States of at most 12 qubits, one in the shared memory of each block of threads; arithmetic in double
// precision. Steps are two-level factors (steps.py): kind, mask, zero, one; and 8 numbers, a
// matrix. With mask's bits fixed to `zero` and to `one`, an index has its two levels.
#pragma once
#include "common.cuh"

enum StepKind { STEP_PHASE, STEP_PERMUTATION, STEP_REAL, STEP_COMPLEX };  // as in circuit/gates.py
enum { STEP_WORDS = 4, STEP_NUMBERS = 8 };

// matrix_of: where a step's numbers are, by its place in the list and the upper half of its first word.
// Begins with a barrier before each step; the caller needs one behind.
template <class F> __device__ __forceinline__ void apply_steps(cplx<double>* state, u32 size, int steps, const u64* table, F matrix_of) {
    for (int s = 0; s < steps; ++s, table += STEP_WORDS) {
        const u32 kind = u32(table[0]), mask = u32(table[1]), zero = u32(table[2]), one = u32(table[3]);
        const cplx<double>* matrix = reinterpret_cast<const cplx<double>*>(matrix_of(s, table[0] >> 32));
        const cplx<double> m00 = matrix[0], m01 = matrix[1], m10 = matrix[2], m11 = matrix[3];  // not all kinds use all
        __syncthreads();  // the step before is complete
        for (u32 k = threadIdx.x; k < size >> __popc(mask); k += blockDim.x) {
            const u32 i = u32(insert_zeros(k, mask));
            const cplx<double> x = state[i | zero];
            if (kind == STEP_PHASE) {
                state[i | zero] = mul(x, m00);
                continue;
            }
            const cplx<double> y = state[i | one];
            if (kind == STEP_PERMUTATION) {
                state[i | zero] = y;
                state[i | one] = x;
                continue;
            }
            state[i | zero] = mul_add(m01, y, mul(m00, x));
            state[i | one] = mul_add(m11, y, mul(m10, x));
        }
    }
}

// Apply steps to state `blockIdx.x` of several, in place. `matrices_stride`: numbers between those of
// two states, 0 where all have the same. is_zero: each begins as |0...0>.
template <class T>
__device__ __forceinline__ void small_steps(cplx<T>* states, int n, int steps, const u64* table, const double* matrices, u64 matrices_stride, int is_zero) {
    SHARED_MEMORY(raw);
    cplx<double>* state = reinterpret_cast<cplx<double>*>(raw);
    const u32 size = 1u << n;
    cplx<T>* own = states + (u64(blockIdx.x) << n);
    for (u32 k = threadIdx.x; k < size; k += blockDim.x) state[k] = is_zero ? cplx<double>{k ? 0.0 : 1.0, 0.0} : widened(load_global(own + k));
    matrices += blockIdx.x * matrices_stride;
    apply_steps(state, size, steps, table, [=](int s, u64) { return matrices + STEP_NUMBERS * s; });
    __syncthreads();  // the last step is complete
    for (u32 k = threadIdx.x; k < size; k += blockDim.x) store_global(own + k, narrowed<T>(state[k]));
}

// Block of four words of Philox 4x64-10 (Salmon et al., 2011), key (seed, binding).
__device__ __forceinline__ void philox(u64 counter, u64 draw, u64 seed, u64 binding, u64 (&out)[4]) {
    u64 x0 = counter, x1 = draw, x2 = 0, x3 = 0, key0 = seed, key1 = binding;
#pragma unroll 1
    for (int round = 0; round < 10; ++round) {
        const u64 h0 = __umul64hi(0xD2E7470EE14C6C93ull, x0), l0 = 0xD2E7470EE14C6C93ull * x0;
        const u64 h1 = __umul64hi(0xCA5A826395121157ull, x2), l1 = 0xCA5A826395121157ull * x2;
        x0 = h1 ^ x1 ^ key0, x1 = l1, x2 = h0 ^ x3 ^ key1, x3 = l0;
        key0 += 0x9E3779B97F4A7C15ull, key1 += 0xBB67AE8584CAA73Bull;
    }
    out[0] = x0, out[1] = x1, out[2] = x2, out[3] = x3;
}

// Counts of one binding for each block of threads, from |0...0> over its steps to the samples of draw 0
// (seed contract of simulators/engine.py): counts[binding * records + which[basis state]], and how
// many of them are not 0. A step's matrix is one of the `steps` that all bindings have, or behind these of
// the `own` ones of each. Shared memory: 16 bytes an amplitude, of 16 at least; later its cumulative sum
// and a count.
__device__ __forceinline__ void evolve_and_count(int n, int steps, const u64* table, const double* matrices, const double* bound, int own, int shots,
                                                 u64 seed, u64 first_binding, const u32* which, int records, u32* counts, u32* sizes) {
    SHARED_MEMORY(raw);
    enum { RUN = 16 };  // weights in registers; fewer amplitudes are padded with zeros
    const u32 size = 1u << n, padded = size < RUN ? u32(RUN) : size, row = blockIdx.x;
    cplx<double>* state = reinterpret_cast<cplx<double>*>(raw);
    u32* found = reinterpret_cast<u32*>(raw) + 2;  // in place of an imaginary part: every fourth word
    for (u32 k = threadIdx.x; k < padded; k += blockDim.x) state[k] = {k ? 0.0 : 1.0, 0.0};
    apply_steps(state, size, steps, table,
                [=](int, u64 at) { return at < u64(steps) ? matrices + STEP_NUMBERS * at : bound + STEP_NUMBERS * (at - steps + u64(row) * own); });
    __syncthreads();  // the last step is complete
    for (u32 k = threadIdx.x; k < size; k += blockDim.x) state[k] = {square(state[k]), 0.0};
    __syncthreads();  // weights are complete
    if (threadIdx.x == 0) {  // in the order of the index: the seed contract
        double total = 0.0, ends[RUN];
#pragma unroll 1
        for (u32 first = 0; first < size; first += RUN) {
#pragma unroll
            for (u32 k = 0; k < RUN; ++k) ends[k] = state[first + k].x;
#pragma unroll
            for (u32 k = 0; k < RUN; ++k) state[first + k].x = total += ends[k];
        }
    }
    __syncthreads();  // cumulative sums are complete
    const double total = state[size - 1].x;
    for (int block = threadIdx.x; 4ll * block < shots; block += blockDim.x) {
        u64 words[4];
        philox(u64(block) + 1, 0, seed, first_binding + row, words);
#pragma unroll
        for (int lane = 0; lane < 4; ++lane) {
            if (4ll * block + lane >= shots) break;
            const double draw = double(words[lane] >> 11) * (1.0 / 9007199254740992.0) * total;
            u32 low = 0, high = size - 1;  // the first outcome whose cumulative sum is above the draw
            while (low < high) {
                const u32 middle = (low + high) >> 1;
                if (state[middle].x > draw) high = middle;
                else low = middle + 1;
            }
            atomicAdd(found + 4 * load_global(which + low), 1u);
        }
    }
    __syncthreads();  // all shots are counted
    u32 kept = 0;
    for (u32 k = threadIdx.x; k < u32(records); k += blockDim.x) {
        store_global(counts + (u64(row) * records + k), found[4 * k]);
        kept += found[4 * k] != 0;
    }
    const double all = block_sum(kept, reinterpret_cast<double*>(raw));  // its first barrier: no count is read any more
    if (threadIdx.x == 0) store_global(sizes + row, u32(all));
}

// Counts of one binding for each block of threads that are not 0, in the order of the records, each
// with its outcome: `width` bytes of a table. begins: places of the bindings' first ones, and the end.
// Each thread takes a range of the records. Shared memory: a number for each thread.
__device__ __forceinline__ void gather_nonzero(const u32* counts, int records, const u32* begins, const unsigned char* table, int width, unsigned char* outcomes,
                                              u32* gathered) {
    SHARED_MEMORY(raw);
    u32* kept = reinterpret_cast<u32*>(raw);
    const u32 each = (records + blockDim.x - 1) / blockDim.x, first = threadIdx.x * each;
    const u32 last = first + each < u32(records) ? first + each : records;
    const u32* own = counts + u64(blockIdx.x) * records;
    u32 found = 0;
    for (u32 k = first; k < last; ++k) found += load_global(own + k) != 0;
    kept[threadIdx.x] = found;
    __syncthreads();  // all ranges are counted
    u64 at = load_global(begins + blockIdx.x);
    for (u32 thread = 0; thread < threadIdx.x; ++thread) at += kept[thread];
    const u64 end = load_global(begins + blockIdx.x + 1);
    for (u32 k = first; k < last && at < end; ++k) {
        const u32 count = load_global(own + k);
        if (count == 0) continue;
        store_global(gathered + at, count);
        for (int byte = 0; byte < width; ++byte) store_global(outcomes + at * width + byte, load_global(table + u64(k) * width + byte));
        ++at;
    }
}
