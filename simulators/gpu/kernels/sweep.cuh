// One sweep over states, tile by tile.
//
// A block of threads holds a tile of 2^W amplitudes in the registers of its 2^(W - R) threads, 2^R
// each. A stage names the R places of the tile that stand in registers; its operations move
// amplitude along these only. Between two stages the amplitudes go once through shared memory, and
// index maps (X, CX, SWAP, Toffoli) are done by reading from another place.
//
// Program of a sweep, u64 words (encode.py writes it):
//   W, stages, tile bits, gaps; the wires that a tile's number skips; the wires of the W places
//   stage: register places (a byte each), thread places (bytes, two words), maps, operations
//   map: mask | value << 16 | other << 32, outer mask, outer value
//   operation: kind | register set << 8 | crossing << 16 | rows << 32, mask | value << 32,
//              outer mask, outer value, position of its numbers, and for a PHASE see phase.cuh
#pragma once
#include "common.cuh"
#include "phase.cuh"

enum OperationKind { DENSE_MATRIX, REAL_MATRIX, FLIP, PHASE };
enum { HEADER_WORDS = 4, STAGE_WORDS = 5, MAP_WORDS = 3 };

// Permutation within shared memory: amplitudes whose places differ by one of three (single: four)
// neighbouring places are in different banks.
template <class T> __device__ __forceinline__ u32 swizzled(u32 j) {
    return sizeof(T) == 8 ? j ^ (((j >> 3) ^ (j >> 6) ^ (j >> 9) ^ (j >> 12)) & 7) : j ^ (((j >> 4) ^ (j >> 8) ^ (j >> 12)) & 15);
}

constexpr __device__ int bit_count(int v) { return (v & 1) + (v >> 1 & 1) + (v >> 2 & 1) + (v >> 3 & 1) + (v >> 4 & 1); }

// The lowest bits of `number` at the positions of SET. A loop, not a recursion: the result must be a
// constant of the compiler, or the amplitudes leave the registers.
template <int SET> __device__ __forceinline__ constexpr int spread_bits(int number) {
    int found = 0, k = 0;
#pragma unroll
    for (int b = 0; b < 5; ++b)
        if (SET >> b & 1) found |= (number >> k++ & 1) << b;
    return found;
}

// The matrix m, row by row, on the registers of SET; bit 0 of its index is the lowest one. Complex
// matrices begin at even positions of the numbers, so that one load takes an element.
template <class T, int R, int SET, bool IS_REAL>
__device__ __forceinline__ void multiply(cplx<T> (&a)[1 << R], const T* m, u32 mask, u32 value) {
    constexpr int K = bit_count(SET), N = 1 << K;
#pragma unroll
    for (int group = 0; group < 1 << R; ++group) {
        if (group & SET) continue;
        if ((group & mask) != value) continue;
        cplx<T> in[N];
#pragma unroll
        for (int i = 0; i < N; ++i) in[i] = a[group | spread_bits<SET>(i)];
#pragma unroll
        for (int i = 0; i < N; ++i) {
            cplx<T> sum;
#pragma unroll
            for (int j = 0; j < N; ++j) {
                const int e = i * N + j;
                if (IS_REAL) {
                    const T f = m[e];
                    sum = j ? cplx<T>{fma(f, in[j].x, sum.x), fma(f, in[j].y, sum.y)} : cplx<T>{f * in[j].x, f * in[j].y};
                } else {
                    const cplx<T> f = reinterpret_cast<const cplx<T>*>(m)[e];
                    sum = j ? mul_add(f, in[j], sum) : mul(f, in[j]);
                }
            }
            a[group | spread_bits<SET>(i)] = sum;
        }
    }
}

// Sets of at most three registers: each has its own code, so that registers have constant indices.
template <class T, int R, bool IS_REAL>
__device__ __forceinline__ void multiply_set(cplx<T> (&a)[1 << R], u32 set, const T* m, u32 mask, u32 value) {
    switch (set) {
#define CASE(S) case S: if constexpr (S < (1 << R)) multiply<T, R, S, IS_REAL>(a, m, mask, value); break;
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14)
#undef CASE
    }
}

// X on one register.
template <class T, int R>
__device__ __forceinline__ void flip(cplx<T> (&a)[1 << R], u32 set, u32 mask, u32 value) {
#pragma unroll
    for (int bit = 0; bit < R; ++bit) {
        if (set != 1u << bit) continue;
#pragma unroll
        for (int r = 0; r < 1 << R; ++r) {
            if (r >> bit & 1 || (r & mask) != value) continue;
            const cplx<T> other = a[r];
            a[r] = a[r | 1 << bit];
            a[r | 1 << bit] = other;
        }
    }
}

// The place from which `k` is read once all maps of a stage are done; `maps`: in order.
__device__ __forceinline__ u32 mapped(u32 k, const u64* maps, u64 count, u64 base) {
    for (int m = int(count) - 1; m >= 0; --m) {
        const u64 word = maps[MAP_WORDS * m];
        const u32 mask = u32(word) & 0xffff, value = u32(word >> 16) & 0xffff, other = u32(word >> 32) & 0xffff;
        const bool fits = (k & mask) == value || (k & mask) == other;
        if (fits && (base & maps[MAP_WORDS * m + 1]) == maps[MAP_WORDS * m + 2]) k ^= value ^ other;
    }
    return k;
}

// The combination of `bits` that register number `r` stands for.
template <int R, class Word> __device__ __forceinline__ Word combined(Word start, const Word (&bits)[R], int r) {
#pragma unroll
    for (int b = 0; b < R; ++b)
        if (r >> b & 1) start |= bits[b];
    return start;
}

// Move the tile through shared memory, from the places of one stage to those of the next.
template <class T, int R>
__device__ __forceinline__ void exchange(cplx<T> (&a)[1 << R], cplx<T>* buffer, u32 j, const u32 (&from)[R], u32 next, const u32 (&to)[R], const u64* maps, u64 count, u64 base) {
    __syncthreads();  // nobody reads the buffer any more
#pragma unroll
    for (int r = 0; r < 1 << R; ++r) store_shared(buffer + swizzled<T>(combined<R>(j, from, r)), a[r]);
    __syncthreads();  // the tile is complete
#pragma unroll
    for (int r = 0; r < 1 << R; ++r) a[r] = load_shared(buffer + swizzled<T>(mapped(combined<R>(next, to, r), maps, count, base)));
}

// `known`: wires that may be 1 where an amplitude is not 0; others are not read. State s of a batch
// begins at states + s * stride, its numbers at numbers + s * numbers_stride; `exact`: the same in
// double precision.
template <class T, int R>
__device__ __forceinline__ void sweep(cplx<T>* states, const u64* at, const u64* terms, const T* numbers, const double* exact, u64 known, u64 stride, u64 numbers_stride) {
    SHARED_MEMORY(raw);
    cplx<double>* products = reinterpret_cast<cplx<double>*>(raw);
    cplx<T>* buffer = reinterpret_cast<cplx<T>*>(raw + PRODUCTS_BYTES);  // of the tile, or of a PHASE's tables
    const u32 width = u32(at[0]), stages = u32(at[1]), tile_bits = u32(at[2]), gaps = u32(at[3]);
    const u64 state = u64(blockIdx.x) >> tile_bits;
    u64 base = blockIdx.x & ((1ull << tile_bits) - 1);
    for (u32 k = 0; k < gaps; ++k) base = base >> at[HEADER_WORDS + k] << (at[HEADER_WORDS + k] + 1) | (base & ((1ull << at[HEADER_WORDS + k]) - 1));
    cplx<T>* amplitudes = states + state * stride;
    numbers += state * numbers_stride;
    exact += state * numbers_stride;
    const u64* wires = at + HEADER_WORDS + gaps;
    at = wires + width;
    cplx<T> a[1 << R];
    u32 j = 0, registers[R];
    for (u32 s = 0; s < stages; ++s) {
        const u64 maps = at[3], operations = at[4];
        u32 next = 0, next_registers[R], moved = 0;
#pragma unroll
        for (int b = 0; b < R; ++b) {
            next_registers[b] = 1u << (at[0] >> (8 * b) & 255);
            moved |= next_registers[b];
        }
        for (u32 k = 0; k < width - R; ++k)
            if (threadIdx.x >> k & 1) next |= 1u << (at[1 + (k >> 3)] >> (8 * (k & 7)) & 255);
        at += STAGE_WORDS;
        if (s == 0) {
            u64 start = base, by[R];
            for (u32 p = 0; p < width; ++p)
                if (next >> p & 1) start |= 1ull << wires[p];
#pragma unroll
            for (int b = 0; b < R; ++b) by[b] = 1ull << wires[31 - __clz(next_registers[b])];
#pragma unroll
            for (int r = 0; r < 1 << R; ++r) {
                const u64 i = combined<R>(start, by, r);
                a[r] = i & ~known ? cplx<T>{T(0), T(0)} : load_global(amplitudes + i);
            }
        } else {
            exchange<T, R>(a, buffer, j, registers, next, next_registers, at, maps, base);
        }
        at += MAP_WORDS * maps;
        j = next;
#pragma unroll
        for (int b = 0; b < R; ++b) registers[b] = next_registers[b];
        for (u64 o = 0; o < operations; ++o) {
            const u64* op = at;
            const u32 kind = u32(op[0]) & 255;
            at += OPERATION_WORDS + (kind == PHASE ? width : 0);
            if ((base & op[2]) != op[3]) continue;
            const u32 mask = u32(op[1]), value = u32(op[1] >> 32);
            u32 own_mask = 0, own_value = 0;  // the condition on places that stand in registers
#pragma unroll
            for (int b = 0; b < R; ++b) {
                if (mask & registers[b]) own_mask |= 1u << b;
                if (value & registers[b]) own_value |= 1u << b;
            }
            const bool applies = (j & mask & ~moved) == (value & ~moved);
            if (kind == PHASE) {
                phase<T, R>(a, op, terms, numbers, exact, base, width, j, registers, buffer, products, own_mask, own_value, applies);
            } else if (applies) {
                const u32 set = u32(op[0] >> 8) & 255;
                if (kind == DENSE_MATRIX) multiply_set<T, R, false>(a, set, numbers + op[4], own_mask, own_value);
                else if (kind == REAL_MATRIX) multiply_set<T, R, true>(a, set, numbers + op[4], own_mask, own_value);
                else flip<T, R>(a, set, own_mask, own_value);
            }
        }
    }
    u64 start = base, by[R];
    for (u32 p = 0; p < width; ++p)
        if (j >> p & 1) start |= 1ull << wires[p];
#pragma unroll
    for (int b = 0; b < R; ++b) by[b] = 1ull << wires[31 - __clz(registers[b])];
#pragma unroll
    for (int r = 0; r < 1 << R; ++r) store_global(amplitudes + combined<R>(start, by, r), a[r]);
}
