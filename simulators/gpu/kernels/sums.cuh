// Reductions over blocks of 2^block_bits amplitudes. A block of threads sums one block in an order
// that depends on its size alone, so sums have the same bits on every device.
#pragma once
#include "common.cuh"

enum Reduction { NORM, QUBIT_WEIGHTS, FINGERPRINT, OVERLAP, DISTANCE };  // as in backend/reductions.py

// A fixed pseudo-random complex number of an index, by the finalizer of SplitMix64 (Steele, Lea and
// Flood, 2014).
__device__ __forceinline__ cplx<double> fingerprint_weight(u64 index) {
    u64 word = (index + 1) * 0x9E3779B97F4A7C15ull;
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9ull;
    word = (word ^ word >> 27) * 0x94D049BB133111EBull;
    word ^= word >> 31;
    return {double(word >> 33) * 4.656612873077393e-10 - 0.5, double(word & 0x7fffffff) * 4.656612873077393e-10 - 0.5};
}

// sums[2 * b], sums[2 * b + 1]: both sums of block b; `other` is read for OVERLAP and DISTANCE.
template <class T>
__device__ __forceinline__ void block_sums(int what, const cplx<T>* state, const cplx<T>* other, int block_bits, int qubit, double turn_x, double turn_y, double* sums) {
    SHARED_MEMORY(raw);
    double* scratch = reinterpret_cast<double*>(raw);
    const u64 first = u64(blockIdx.x) << block_bits;
    double x = 0.0, y = 0.0;
    for (u32 k = threadIdx.x; k < 1u << block_bits; k += blockDim.x) {
        const cplx<double> a = widened(load_global(state + first + k));
        if (what == NORM) {
            x += square(a);
        } else if (what == QUBIT_WEIGHTS) {
            const double weight = square(a);
            if ((first + k) >> qubit & 1) y += weight;
            else x += weight;
        } else if (what == FINGERPRINT) {
            const cplx<double> v = mul(a, fingerprint_weight(first + k));
            x += v.x;
            y += v.y;
        } else {
            const cplx<double> b = widened(load_global(other + first + k));
            if (what == OVERLAP) {
                x += fma(a.y, b.y, a.x * b.x);
                y += fma(-a.y, b.x, a.x * b.y);
            } else {
                const cplx<double> turned = mul(cplx<double>{turn_x, turn_y}, b);
                x += square(cplx<double>{a.x - turned.x, a.y - turned.y});
            }
        }
    }
    const double total_x = block_sum(x, scratch), total_y = block_sum(y, scratch);
    if (threadIdx.x == 0) {
        store_global(sums + 2 * u64(blockIdx.x), total_x);
        store_global(sums + 2 * u64(blockIdx.x) + 1, total_y);
    }
}

// Probabilities of the values of some qubits. wires: ascending positions under `mask`; value v sums
// the amplitudes whose bits under `mask` are v's, 2^part_bits of them a thread; sums[v << rest_bits | r]
// has those whose other bits end in r.
template <class T>
__device__ __forceinline__ void outcome_sums(const cplx<T>* state, u64 mask, int part_bits, int rest_bits, u64 outputs, double* sums) {
    const u64 output = u64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (output >= outputs) return;
    const u64 value = output >> rest_bits, rest = output & ((1ull << rest_bits) - 1);
    u64 base = 0, left = value;
    for (u64 m = mask; m; m &= m - 1, left >>= 1)
        if (left & 1) base |= m & (0ull - m);
    double total = 0.0;
    for (u64 k = 0; k < 1ull << part_bits; ++k) total += square(widened(load_global(state + (insert_zeros(k << rest_bits | rest, mask) | base))));
    store_global(sums + output, total);
}

// Inverse-CDF sampling within blocks. Draws begins[b] .. begins[b + 1] - 1 (ascending) fall into
// block hits[b], before which the sum is edges[b]. found[s]: the first basis state of the block whose
// cumulative sum is greater than the draw; where rounding leaves a draw beyond the end, the last one
// of any weight. Shared memory: size + size / 8 doubles, and one.
template <class T>
__device__ __forceinline__ void locate(const cplx<T>* state, int block_bits, const i64* hits, const double* edges, const i64* begins, const double* draws, i64* found) {
    SHARED_MEMORY(raw);
    const u32 size = 1u << block_bits, run = size < 16 ? size : 16, runs = size / run;
    double* weights = reinterpret_cast<double*>(raw);  // one unused after each 16: fewer bank conflicts
    double* ends = weights + size + size / 16;  // cumulative sums of the runs of 16
    const u64 first = u64(hits[blockIdx.x]) << block_bits;
    const double edge = edges[blockIdx.x];
    for (u32 k = threadIdx.x; k < size; k += blockDim.x) weights[k + k / 16] = square(widened(load_global(state + first + k)));
    __syncthreads();  // weights are complete
    for (u32 r = threadIdx.x; r < runs; r += blockDim.x) {
        double sum = 0.0;
        for (u32 k = r * run; k < (r + 1) * run; ++k) sum += weights[k + k / 16];
        ends[r] = sum;
    }
    __syncthreads();  // sums of runs are complete
    if (threadIdx.x == 0) {
        double sum = 0.0;
        for (u32 r = 0; r < runs; ++r) ends[r] = sum += ends[r];
    }
    __syncthreads();  // cumulative sums are complete
    for (i64 s = begins[blockIdx.x] + threadIdx.x; s < begins[blockIdx.x + 1]; s += blockDim.x) {
        const double draw = draws[s];
        u32 low = 0, high = runs - 1;  // the first run that ends beyond the draw
        while (low < high) {
            const u32 middle = (low + high) >> 1;
            if (edge + ends[middle] > draw) high = middle;
            else low = middle + 1;
        }
        double sum = low ? ends[low - 1] : 0.0;
        u32 k = low * run, last = k;
        bool is_found = false;
        for (; k < (low + 1) * run && !is_found; ++k) {
            const double weight = weights[k + k / 16];
            sum += weight;
            if (weight > 0.0) {
                last = k;
                is_found = edge + sum > draw;
            }
        }
        while (weights[last + last / 16] == 0.0 && last > 0) --last;  // a run without any weight at the end
        found[s] = i64(first) + last;
    }
}
