// PHASE of a sweep table: multiplication by a factor that depends on the amplitude's index alone.
//
// An operation's words, after those of every operation (see sweep.cuh): number of terms | lane bits
// << 32, first term, and columns as those of a stage (see sweep.cuh): what a bit adds to the positions in
// the table of rows (low half) and in the tables of lanes (high half).
#pragma once
#include "common.cuh"

enum { PASS_WORDS = 8000, OPERATION_WORDS = 5, PHASE_WORDS = 2, COLUMN_BITS = 8, PRODUCTS_BYTES = 384 };

extern "C" {
alignas(16) __constant__ u64 PASS[PASS_WORDS];  // the program of the next sweep, and its matrices
}

// The exclusive or of the columns of this thread's bits that are 1; see sweep.cuh.
__device__ __forceinline__ u64 thread_columns(u32 at) {
    u64 result = 0;
#pragma unroll 2
    for (u32 k = 0; k < COLUMN_BITS; ++k) result ^= PASS[at + k] & (0 - u64(threadIdx.x >> k & 1));
    return result;
}

// products[p] = the product of the terms of place p, products[width] of those without a place.
__device__ __forceinline__ void multiply_terms(u32 op, const u64* terms, const double* factors, u64 base, u32 width, cplx<double>* products) {
    const u32 count = u32(PASS[op + 5]);
    const u64* own = terms + 2 * PASS[op + 6];
    for (u32 place = threadIdx.x; place <= width; place += blockDim.x) {
        cplx<double> product = {1.0, 0.0};
#pragma unroll 4
        for (u32 t = 0; t < count; ++t) {
            const u64 mask = own[2 * t], at = own[2 * t + 1];
            const bool is_mine = at == place || (at == 255 && place == width);
            if (is_mine && (base & mask) == mask) product = mul(product, cplx<double>{factors[2 * t], factors[2 * t + 1]});
        }
        products[place] = product;
    }
}

// Fill the tables of rows, then of lanes, with the products of the terms multiplied in.
template <class T>
__device__ __forceinline__ void fill_phase_tables(u32 op, const T* numbers, const cplx<double>* products, cplx<T>* tables, u32 width) {
    const u32 crossing = u32(PASS[op] >> 16) & 255, rows = u32(PASS[op] >> 32), lane_bits = u32(PASS[op + 5] >> 32);
    const u32 lanes = 1u << lane_bits;
    for (u32 k = threadIdx.x; k < rows; k += blockDim.x) {
        cplx<double> f = mul(products[width], cplx<double>{double(numbers[2 * k]), double(numbers[2 * k + 1])});
        for (u32 b = 0; k >> b; ++b)
            if (k >> b & 1) f = mul(f, products[lane_bits + b]);
        store_shared(tables + k, narrowed<T>(f));
    }
    const T* own = numbers + 2 * rows;
    for (u32 k = threadIdx.x; k < lanes << crossing; k += blockDim.x) {
        const u32 lane = k & (lanes - 1), at = 2 * (k - lane) + lane;  // real parts, then imaginary ones
        cplx<double> f = {double(own[at]), double(own[at + lanes])};
        for (u32 b = 0; lane >> b; ++b)
            if (lane >> b & 1) f = mul(f, products[b]);
        store_shared(tables + rows + k, narrowed<T>(f));
    }
}

// Multiply the amplitudes of this thread. All threads of the block call it, `applies` may differ
// among them.
template <class T, int R>
__device__ __forceinline__ void phase(cplx<T> (&a)[1 << R], u32 op, const u64* terms, const T* numbers, const double* exact, u64 base, u32 width,
                                      cplx<T>* tables, cplx<double>* products, u32 mask, u32 value, bool applies) {
    const u32 crossing = u32(PASS[op] >> 16) & 255, rows = u32(PASS[op] >> 32), lane_bits = u32(PASS[op + 5] >> 32);
    const u32 columns = op + OPERATION_WORDS + PHASE_WORDS;
    const u64 at = PASS[op + 4];
    multiply_terms(op, terms, exact + at + 2 * rows + (2ull << lane_bits << crossing), base, width, products);
    __syncthreads();  // products are complete, and nobody reads what the tables overwrite
    fill_phase_tables<T>(op, numbers + at, products, tables, width);
    __syncthreads();  // tables are complete
    if (!applies) return;
    u64 step[R];
    const u64 own = thread_columns(columns);
#pragma unroll
    for (int b = 0; b < R; ++b) step[b] = PASS[columns + COLUMN_BITS + b];
#pragma unroll
    for (int r = 0; r < 1 << R; ++r) {
        if ((r & mask) != value) continue;
        u64 place = own;
#pragma unroll
        for (int b = 0; b < R; ++b)
            if (r >> b & 1) place ^= step[b];
        a[r] = mul(a[r], mul(load_shared(tables + u32(place)), load_shared(tables + rows + u32(place >> 32))));
    }
}
