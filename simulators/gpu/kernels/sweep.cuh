// One sweep over states, tile by tile.
//
// A block of threads holds a tile of 2^W amplitudes in the registers of its 2^(W - R) threads, 2^R
// each. A stage names the R places of the tile that stand in registers; its operations move
// amplitude along these only. Between two stages the amplitudes go once through shared memory, and
// index maps (X, CX, SWAP, Toffoli) are done by reading from another place.
//
// Program of a sweep, u64 words at the begin of PASS (sweeps.py writes it):
//   W, stages, tile bits, gaps, words of the program, position of the matrices among the numbers; the
//   wires that a tile's number skips; the wires of the W places
//   stage: register places (a byte each), thread places (bytes, two words), maps | affine << 32,
//          operations
//   map: mask | value << 16 | other << 32, outer mask, outer value
//   operation: kind | register set << 8 | crossing << 16 | rows << 32, its condition on places: mask
//              of threads | of registers << 16 | value of threads << 32 | of registers << 48, outer
//              mask, outer value, position of its numbers, and for a PHASE see phase.cuh
//
// The matrices follow the program there, unless each state of a batch has its own. In constant memory
// all of this is read once for a warp, by instructions that take no bandwidth of the L1 cache: as
// global loads, the matrices of a sweep took more of that than its amplitudes.
#pragma once
#include "common.cuh"
#include "phase.cuh"

enum OperationKind { DENSE_MATRIX, REAL_MATRIX, FLIP, PHASE };
enum { HEADER_WORDS = 6, STAGE_WORDS = 5, MAP_WORDS = 3 };

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
// matrices begin at even positions of the numbers. GROUPS groups of amplitudes share the loads of its
// elements, and the condition: it is read for the first of them. With more of them, or without a branch
// for each GROUPS of them, the amplitudes leave the registers.
template <class T, int R, int SET, bool IS_REAL, int GROUPS>
__device__ __forceinline__ void multiply(cplx<T> (&a)[1 << R], const T* m, u32 mask, u32 value) {
    constexpr int K = bit_count(SET), N = 1 << K, OTHERS = (1 << R) - 1 - SET;
#pragma unroll
    for (int first = 0; first < 1 << (R - K); first += GROUPS) {
        if ((spread_bits<OTHERS>(first) & mask) != value) continue;
        cplx<T> in[GROUPS][N];
#pragma unroll
        for (int g = 0; g < GROUPS; ++g)
#pragma unroll
            for (int i = 0; i < N; ++i) in[g][i] = a[spread_bits<OTHERS>(first + g) | spread_bits<SET>(i)];
#pragma unroll
        for (int i = 0; i < N; ++i) {
            cplx<T> sums[GROUPS];
#pragma unroll
            for (int j = 0; j < N; ++j) {
                const cplx<T> f = IS_REAL ? cplx<T>{m[i * N + j], T(0)} : reinterpret_cast<const cplx<T>*>(m)[i * N + j];
#pragma unroll
                for (int g = 0; g < GROUPS; ++g) {
                    const cplx<T> x = in[g][j];
                    if (IS_REAL) sums[g] = j ? cplx<T>{fma(f.x, x.x, sums[g].x), fma(f.x, x.y, sums[g].y)} : cplx<T>{f.x * x.x, f.x * x.y};
                    else sums[g] = j ? mul_add(f, x, sums[g]) : mul(f, x);
                }
            }
#pragma unroll
            for (int g = 0; g < GROUPS; ++g) a[spread_bits<OTHERS>(first + g) | spread_bits<SET>(i)] = sums[g];
        }
    }
}

// Before sm_90 the compiler keeps no two groups of pairs in registers.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900 || defined(__HIP__)
enum { SHARING_QUBITS = 1 };
#else
enum { SHARING_QUBITS = 2 };
#endif

// Sets of at most three registers: each has its own code, so that registers have constant indices.
// `nothing`: 0, which the compiler does not know.
template <class T, int R, bool IS_REAL, bool IS_BATCH>
__device__ __forceinline__ void multiply_set(cplx<T> (&a)[1 << R], u32 set, const T* m, u32 mask, u32 value, u32 nothing) {
    switch (set) {
#define CASE(S) \
    case S: \
        if (!IS_BATCH && bit_count(S) <= SHARING_QUBITS && !mask) multiply<T, R, S, IS_REAL, (8 >> bit_count(S))>(a, m, nothing, 0); \
        else multiply<T, R, S, IS_REAL, 1>(a, m, mask, value); \
        break;
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

// The place from which `k` is read once all maps of a stage are done, which are in order in PASS.
__device__ __forceinline__ u32 mapped(u32 k, u32 maps, u32 count, u64 base) {
    for (u32 at = maps + MAP_WORDS * count; at > maps;) {
        at -= MAP_WORDS;
        if ((base & PASS[at + 1]) != PASS[at + 2]) continue;
        const u32 mask = u32(PASS[at]) & 0xffff, value = u32(PASS[at] >> 16) & 0xffff, other = u32(PASS[at] >> 32) & 0xffff;
        if ((k & mask) == value || (k & mask) == other) k ^= value ^ other;
    }
    return k;
}

// The combination of `bits` that register number `r` stands for.
template <int R, class Word> __device__ __forceinline__ Word combined(Word start, const Word (&bits)[R], int r) {
#pragma unroll
    for (int b = 0; b < R; ++b)
        if (r >> b & 1) start ^= bits[b];
    return start;
}

// Move the tile through shared memory, from the places of one stage to those of the next. is_affine:
// the maps of an exclusive or are the exclusive or of maps, but for a constant; so is `swizzled`.
template <class T, int R>
__device__ __forceinline__ void exchange(cplx<T> (&a)[1 << R], cplx<T>* buffer, u32 j, const u32 (&from)[R], u32 next, const u32 (&to)[R], u32 maps, u32 count, bool is_affine, u64 base) {
    u32 by[R];
#pragma unroll
    for (int b = 0; b < R; ++b) by[b] = swizzled<T>(from[b]);
    __syncthreads();  // nobody reads the buffer any more
#pragma unroll
    for (int r = 0; r < 1 << R; ++r) store_shared(buffer + combined<R>(swizzled<T>(j), by, r), a[r]);
    __syncthreads();  // the tile is complete
    if (is_affine) {
        const u32 origin = mapped(0, maps, count, base);
#pragma unroll
        for (int b = 0; b < R; ++b) by[b] = swizzled<T>(mapped(to[b], maps, count, base) ^ origin);
        const u32 first = swizzled<T>(mapped(next, maps, count, base));
#pragma unroll
        for (int r = 0; r < 1 << R; ++r) a[r] = load_shared(buffer + combined<R>(first, by, r));
    } else {
#pragma unroll
        for (int r = 0; r < 1 << R; ++r) a[r] = load_shared(buffer + swizzled<T>(mapped(combined<R>(next, to, r), maps, count, base)));
    }
}

// `known`: wires that may be 1 where an amplitude is not 0; others are not read. State s of a batch
// begins at states + s * stride, its numbers at numbers + s * numbers_stride; `exact`: the same in
// double precision.
template <class T, int R, bool IS_BATCH>
__device__ __forceinline__ void sweep(cplx<T>* states, const u64* terms, const T* numbers, const double* exact, u64 known, u64 stride, u64 numbers_stride) {
    SHARED_MEMORY(raw);
    cplx<double>* products = reinterpret_cast<cplx<double>*>(raw);
    cplx<T>* buffer = reinterpret_cast<cplx<T>*>(raw + PRODUCTS_BYTES);  // of the tile, or of a PHASE's tables
    const u32 width = u32(PASS[0]), stages = u32(PASS[1]), tile_bits = u32(PASS[2]), gaps = u32(PASS[3]);
    u64 base = blockIdx.x;
    if (IS_BATCH) {
        const u64 state = base >> tile_bits;
        base &= (1ull << tile_bits) - 1;
        states += state * stride;
        numbers += state * numbers_stride;
        exact += state * numbers_stride;
    }
    const T* matrices = IS_BATCH ? numbers + PASS[5] : reinterpret_cast<const T*>(PASS + u32(PASS[4]));
    for (u32 k = HEADER_WORDS; k < HEADER_WORDS + gaps; ++k) base = base >> PASS[k] << (PASS[k] + 1) | (base & ((1ull << PASS[k]) - 1));
    const u32 wires = HEADER_WORDS + gaps;
    u32 at = wires + width;
    cplx<T> a[1 << R];
    u32 j = 0, registers[R];
    for (u32 s = 0; s < stages; ++s) {
        const u32 maps = u32(PASS[at + 3]), operations = u32(PASS[at + 4]);
        const bool is_affine = PASS[at + 3] >> 32;
        u32 next = 0, next_registers[R];
#pragma unroll
        for (int b = 0; b < R; ++b) next_registers[b] = 1u << (PASS[at] >> (8 * b) & 255);
        for (u32 k = 0; k < width - R; ++k)
            if (threadIdx.x >> k & 1) next |= 1u << (PASS[at + 1 + (k >> 3)] >> (8 * (k & 7)) & 255);
        at += STAGE_WORDS;
        if (s == 0) {
            u64 start = base, by[R];
            for (u32 p = 0; p < width; ++p)
                if (next >> p & 1) start |= 1ull << PASS[wires + p];
#pragma unroll
            for (int b = 0; b < R; ++b) by[b] = 1ull << PASS[wires + 31 - __clz(next_registers[b])];
#pragma unroll
            for (int r = 0; r < 1 << R; ++r) {
                const u64 i = combined<R>(start, by, r);
                a[r] = i & ~known ? cplx<T>{T(0), T(0)} : load_global(states + i);
            }
        } else {
            exchange<T, R>(a, buffer, j, registers, next, next_registers, at, maps, is_affine, base);
        }
        at += MAP_WORDS * maps;
        j = next;
#pragma unroll
        for (int b = 0; b < R; ++b) registers[b] = next_registers[b];
        for (u32 o = 0; o < operations; ++o) {
            const u32 op = at, kind = u32(PASS[op]) & 255;
            at += OPERATION_WORDS + (kind == PHASE ? PHASE_WORDS + width : 0);
            if ((base & PASS[op + 2]) != PASS[op + 3]) continue;
            const u32 masks = u32(PASS[op + 1]), values = u32(PASS[op + 1] >> 32);
            const u32 own_mask = masks >> 16, own_value = values >> 16;  // of the places that stand in registers
            const bool applies = (j & masks & 0xffff) == (values & 0xffff);
            if (kind == PHASE) {
                phase<T, R>(a, op, terms, numbers, exact, base, width, j, registers, buffer, products, own_mask, own_value, applies);
            } else if (applies) {
                const u32 set = u32(PASS[op] >> 8) & 255, nothing = u32(PASS[op] >> 16) & 255;
                const T* matrix = matrices + u32(PASS[op + 4]);
                if (kind == DENSE_MATRIX) multiply_set<T, R, false, IS_BATCH>(a, set, matrix, own_mask, own_value, nothing);
                else if (kind == REAL_MATRIX) multiply_set<T, R, true, IS_BATCH>(a, set, matrix, own_mask, own_value, nothing);
                else flip<T, R>(a, set, own_mask, own_value);
            }
        }
    }
    u64 start = base, by[R];
    for (u32 p = 0; p < width; ++p)
        if (j >> p & 1) start |= 1ull << PASS[wires + p];
#pragma unroll
    for (int b = 0; b < R; ++b) by[b] = 1ull << PASS[wires + 31 - __clz(registers[b])];
#pragma unroll
    for (int r = 0; r < 1 << R; ++r) store_global(states + combined<R>(start, by, r), a[r]);
}
