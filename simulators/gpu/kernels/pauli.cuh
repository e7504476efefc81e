// Pauli strings (x, z): a string flips the bits under x and has the signs of those under z.
#pragma once
#include "common.cuh"

// values[z] becomes the sum of all values with the signs of z (Walsh-Hadamard transform). All threads
// of the block call it; it begins and ends with a barrier.
__device__ __forceinline__ void walsh_hadamard(double* values, u32 bits) {
    for (u32 b = 0; b < bits; ++b) {
        __syncthreads();  // the stage before is complete
        for (u32 k = threadIdx.x; k < 1u << bits >> 1; k += blockDim.x) {
            const u32 i = (k >> b << (b + 1)) | (k & ((1u << b) - 1)), j = i | 1u << b;
            const double u = values[i], v = values[j];
            values[i] = u + v;
            values[j] = u - v;
        }
    }
    __syncthreads();  // the transform is complete
}

// sums[b * strings + t] = block b's share of <state| P |state> for the strings (x, zs[t]).
// factors[2 * t], [2 * t + 1]: of the products' real and imaginary parts. Shared memory: 2 * size
// doubles.
template <class T>
__device__ __forceinline__ void pauli_sums(const cplx<T>* states, int block_bits, u64 x, int strings, const u64* zs, const double* factors, double* sums) {
    SHARED_MEMORY(raw);
    const u32 size = 1u << block_bits;
    double* even = reinterpret_cast<double*>(raw);
    double* odd = even + size;
    const u64 first = u64(blockIdx.x) << block_bits, low = size - 1;
    const u64 partner = (first ^ x) & ~low;  // index k of the sums is that of the flipped state
    for (u32 k = threadIdx.x; k < size; k += blockDim.x) {
        const cplx<double> a = widened(load_global(states + partner + (k ^ (x & low)))), b = widened(load_global(states + first + k));
        even[k] = fma(a.y, b.y, a.x * b.x);
        odd[k] = fma(-a.y, b.x, a.x * b.y);
    }
    walsh_hadamard(even, block_bits);
    walsh_hadamard(odd, block_bits);
    for (u32 t = threadIdx.x; t < u32(strings); t += blockDim.x) {
        const u64 z = zs[t];
        const double sum = fma(factors[2 * t], even[z & low], factors[2 * t + 1] * odd[z & low]);
        store_global(sums + u64(blockIdx.x) * strings + t, parity_sign(first & z) * sum);
    }
}

// into[k] = the sum over strings of (factors[2 * t] + i factors[2 * t + 1]) (-1)^(k' & zs[t]) state[k'],
// k' = k ^ xs[t]: a Pauli sum applied to a state.
template <class T>
__device__ __forceinline__ void apply_pauli_sum(const cplx<T>* state, cplx<T>* into, u64 size, int strings, const u64* xs, const u64* zs, const double* factors) {
    const u64 k = u64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (k >= size) return;
    cplx<double> sum = {0.0, 0.0};
    for (int t = 0; t < strings; ++t) {
        const u64 source = k ^ xs[t];
        const double sign = parity_sign(source & zs[t]);
        sum = mul_add(cplx<double>{sign * factors[2 * t], sign * factors[2 * t + 1]}, widened(load_global(state + source)), sum);
    }
    store_global(into + k, narrowed<T>(sum));
}
