// Types and helpers of all kernels. One source for three compilers: NVRTC and HIPRTC for GPUs, g++
// with testbed/cuda_host.hpp for tests without one. Products and sums are written with fma() and
// compiled without contraction (--fmad=false, -ffp-contract=off), so that all give the same bits.
#pragma once
#if defined(__CUDACC__) || defined(__HIP__)
#define ON_DEVICE
#define SHARED_MEMORY(name) alignas(16) extern __shared__ char name[]
#define TRACE(access, pointer, size)
#else
#include "cuda_host.hpp"
#define SHARED_MEMORY(name) char* name = host::shared
#define TRACE(access, pointer, size) host::trace_access(host::access, pointer, size)
#endif

#ifdef __HIP__  // no lane of a wavefront of 64 takes a value of the other half
#define __shfl_xor_sync(mask, value, lanes) __shfl_xor(value, lanes)
#endif

typedef unsigned long long u64;
typedef long long i64;
typedef unsigned u32;

enum { BLOCK_BITS = 12 };  // sums run over blocks of 2^BLOCK_BITS amplitudes, each by itself

template <class T> struct alignas(2 * sizeof(T)) cplx { T x, y; };

template <class T> __device__ __forceinline__ cplx<T> mul(cplx<T> a, cplx<T> b) {
    return {fma(-a.y, b.y, a.x * b.x), fma(a.y, b.x, a.x * b.y)};
}
template <class T> __device__ __forceinline__ cplx<T> mul_add(cplx<T> a, cplx<T> b, cplx<T> c) {
    return {fma(-a.y, b.y, fma(a.x, b.x, c.x)), fma(a.y, b.x, fma(a.x, b.y, c.y))};
}
template <class T> __device__ __forceinline__ cplx<double> widened(cplx<T> a) { return {double(a.x), double(a.y)}; }
template <class T> __device__ __forceinline__ cplx<T> narrowed(cplx<double> a) { return {T(a.x), T(a.y)}; }
__device__ __forceinline__ double square(cplx<double> a) { return fma(a.y, a.y, a.x * a.x); }

template <class P> __device__ __forceinline__ P load_global(const P* at) { TRACE(GLOBAL_LOAD, at, sizeof(P)); return *at; }
template <class P> __device__ __forceinline__ void store_global(P* at, P value) { TRACE(GLOBAL_STORE, at, sizeof(P)); *at = value; }
template <class P> __device__ __forceinline__ P load_shared(const P* at) { TRACE(SHARED_LOAD, at, sizeof(P)); return *at; }
template <class P> __device__ __forceinline__ void store_shared(P* at, P value) { TRACE(SHARED_STORE, at, sizeof(P)); *at = value; }

// -1.0 if the word has an odd number of ones, else 1.0.
__device__ __forceinline__ double parity_sign(u64 word) { return __popcll(word) & 1 ? -1.0 : 1.0; }

// The lowest bits of `number`, moved to the positions that `mask` leaves free, in order.
__device__ __forceinline__ u64 insert_zeros(u64 number, u64 mask) {
    for (; mask; mask &= mask - 1) {
        const u64 low = mask & (0ull - mask);
        number = (number & ~(low - 1)) << 1 | (number & (low - 1));
    }
    return number;
}

// The sum of all threads' values, in one order for any number of blocks; valid in thread 0. All
// threads of the block call it; `scratch`: a double for each warp. Blocks are of whole warps.
__device__ __forceinline__ double block_sum(double value, double* scratch) {
    for (int lane = 16; lane; lane >>= 1) value += __shfl_xor_sync(~0u, value, lane);
    __syncthreads();  // the scratch of an earlier sum is not read any more
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
    __syncthreads();
    double total = 0.0;
    if (threadIdx.x == 0)
        for (u32 warp = 0; warp < blockDim.x / 32; ++warp) total += scratch[warp];
    return total;
}
