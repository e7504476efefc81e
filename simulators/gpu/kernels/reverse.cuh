// Reverse pass of adjoint differentiation (gradient/adjoint.py) over two states, tile by tile, in
// double precision. Steps as in small.cuh, with conditions on the tile: kind, mask, zero, one, outer
// mask, outer value, column. A step with a column is weighed before it is taken back on both states:
// with p, q, r, s the sums of conj(b0) a0, conj(b1) a1, conj(b0) a1, conj(b1) a0 over its pairs,
// its sums are Im p, Im q, Im (r + s), Re (r - s).
#pragma once
#include "common.cuh"
#include "small.cuh"

enum { REVERSE_WORDS = 7 };

// Take a step back on a tile of both states; in four sums, its share of the thread.
__device__ __forceinline__ void step_back(cplx<double>* a, cplx<double>* b, u32 size, const u64* row, const double* m, double (&sums)[4]) {
    const u32 kind = u32(row[0]), mask = u32(row[1]), zero = u32(row[2]), one = u32(row[3]);
    const cplx<double> m0 = {m[0], m[1]}, m1 = {m[2], m[3]}, m2 = {m[4], m[5]}, m3 = {m[6], m[7]};
    for (u32 k = threadIdx.x; k < size >> __popc(mask); k += blockDim.x) {
        const u32 i = u32(insert_zeros(k, mask)), lo = i | zero, hi = i | one;
        const cplx<double> a0 = a[lo], b0 = b[lo];
        sums[0] += fma(-b0.y, a0.x, b0.x * a0.y);
        if (kind == STEP_PHASE) {
            a[lo] = mul(m0, a0);
            b[lo] = mul(m0, b0);
            continue;
        }
        const cplx<double> a1 = a[hi], b1 = b[hi];
        sums[1] += fma(-b1.y, a1.x, b1.x * a1.y);
        sums[2] += fma(-b0.y, a1.x, b0.x * a1.y) + fma(-b1.y, a0.x, b1.x * a0.y);
        sums[3] += fma(b0.y, a1.y, b0.x * a1.x) - fma(b1.y, a0.y, b1.x * a0.x);
        if (kind == STEP_PERMUTATION) {
            a[lo] = a1, a[hi] = a0, b[lo] = b1, b[hi] = b0;
            continue;
        }
        a[lo] = mul_add(m1, a1, mul(m0, a0));
        a[hi] = mul_add(m3, a1, mul(m2, a0));
        b[lo] = mul_add(m1, b1, mul(m0, b0));
        b[hi] = mul_add(m3, b1, mul(m2, b0));
    }
}

// One pass. A block of threads has the tiles blockIdx.x * tiles_each ..., of the qubits under `tile`;
// sums[(block * columns + column) * 4 ...]. Shared memory: 2 * size complex numbers, a double for
// each warp, 4 * columns doubles.
template <class T>
__device__ __forceinline__ void reverse_pass(cplx<T>* state, cplx<T>* other, int width, u64 tile, int steps, const u64* table, const double* matrices, int tiles_each, int columns, double* sums) {
    SHARED_MEMORY(raw);
    const u32 size = 1u << width;
    cplx<double>* a = reinterpret_cast<cplx<double>*>(raw);
    cplx<double>* b = a + size;
    double* scratch = reinterpret_cast<double*>(b + size);
    double* own = scratch + 32;
    for (int k = threadIdx.x; k < 4 * columns; k += blockDim.x) own[k] = 0.0;
    for (int t = 0; t < tiles_each; ++t) {
        // A thread loads and stores the same amplitudes, so no barrier is needed between two tiles.
        const u64 base = insert_zeros(u64(blockIdx.x) * tiles_each + t, tile);
        for (u32 k = threadIdx.x; k < size; k += blockDim.x) {
            u64 i = base;
            u32 left = k;
            for (u64 m = tile; m; m &= m - 1, left >>= 1)
                if (left & 1) i |= m & (0ull - m);
            a[k] = widened(load_global(state + i));
            b[k] = widened(load_global(other + i));
        }
        for (int s = 0; s < steps; ++s) {
            const u64* row = table + REVERSE_WORDS * s;
            if ((base & row[4]) != row[5]) continue;
            double share[4] = {0.0, 0.0, 0.0, 0.0};
            __syncthreads();  // the step before is complete
            step_back(a, b, size, row, matrices + STEP_NUMBERS * s, share);
            const i64 column = i64(row[6]);
            if (column < 0) continue;
            for (int k = 0; k < 4; ++k) {
                const double total = block_sum(share[k], scratch);
                if (threadIdx.x == 0) own[4 * column + k] += total;
            }
        }
        __syncthreads();  // the last step is complete
        for (u32 k = threadIdx.x; k < size; k += blockDim.x) {
            u64 i = base;
            u32 left = k;
            for (u64 m = tile; m; m &= m - 1, left >>= 1)
                if (left & 1) i |= m & (0ull - m);
            store_global(state + i, narrowed<T>(a[k]));
            store_global(other + i, narrowed<T>(b[k]));
        }
    }
    for (int k = threadIdx.x; k < 4 * columns; k += blockDim.x) store_global(sums + u64(blockIdx.x) * 4 * columns + k, own[k]);
}
