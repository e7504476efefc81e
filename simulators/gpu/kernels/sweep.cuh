// One sweep over states, tile by tile.
//
// A block of threads holds a tile of 2^W amplitudes in the registers of its 2^(W - R) threads, 2^R
// each. A stage names the R places of the tile that stand in registers; its operations move
// amplitude along these only. Between two stages the amplitudes go once through shared memory, and
// index maps (X, CX, SWAP, Toffoli) are done by reading from another place.
//
// Program of a sweep, u64 words at the begin of PASS (sweeps.py writes it):
//   W, stages, tile bits, gaps, words of the program, position of the matrices among the numbers; the
//   wires that a tile's number skips; columns of the index in the state, of the first stage and of the
//   last one
//   stage: maps | affine << 32 | origin << 40, operations; columns: place (as a bit) | where it is written
//          to the buffer << 16 | where it is read from there << 32, in bytes
//   map: mask | value << 16 | other << 32, outer mask, outer value; of an affine stage where the
//        origin is moved to, and the outer mask and value of that
//
// Columns are of the thread's bits, COLUMN_BITS of them with zeros for those that a smaller tile does
// not have, and of the R registers: positions are linear over GF(2), so that of an amplitude is the
// exclusive or of the columns of its bits. An affine stage has its maps in the columns, but for what
// depends on the tile's base. The program has them ready, because a thread would take more
// instructions to derive them than for the stage's matrices.
//
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
enum { HEADER_WORDS = 6, STAGE_WORDS = 2, MAP_WORDS = 3 };

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

// X on the register `bit`, a constant of the compiler.
template <class T, int R>
__device__ __forceinline__ void flip_register(cplx<T> (&a)[1 << R], int bit, u32 mask, u32 value) {
#pragma unroll
    for (int r = 0; r < 1 << R; ++r) {
        if (r >> bit & 1 || (r & mask) != value) continue;
        const cplx<T> other = a[r];
        a[r] = a[r | 1 << bit];
        a[r | 1 << bit] = other;
    }
}

// X on one register, which `set` has alone. By branches, or NVIDIA's compiler takes 256 selections; with
// them AMD's puts the amplitudes of single precision into memory.
template <class T, int R> __device__ __forceinline__ void flip(cplx<T> (&a)[1 << R], u32 set, u32 mask, u32 value) {
#ifdef __HIP__
#pragma unroll
    for (int bit = 0; bit < R; ++bit)
        if (set == 1u << bit) flip_register<T, R>(a, bit, mask, value);
#else
    switch (set) {
    case 1: flip_register<T, R>(a, 0, mask, value); break;
    case 2: flip_register<T, R>(a, 1, mask, value); break;
    case 4: flip_register<T, R>(a, 2, mask, value); break;
    case 8: flip_register<T, R>(a, 3, mask, value); break;
    }
#endif
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

// The amplitude at a position of the buffer, in bytes.
template <class T> __device__ __forceinline__ cplx<T>* at_byte(cplx<T>* buffer, u32 position) {
    return reinterpret_cast<cplx<T>*>(reinterpret_cast<char*>(buffer) + position);
}

// Move the tile through shared memory, from the places of one stage to those of the next. `from`, `to`:
// their words of maps; `own`, `next`: the columns of this thread's bits, combined.
template <class T, int R>
__device__ __forceinline__ void exchange(cplx<T> (&a)[1 << R], cplx<T>* buffer, u32 from, u32 own, u32 to, u64 next, u64 base) {
    u32 by[R];
#pragma unroll
    for (int b = 0; b < R; ++b) by[b] = u32(PASS[from + STAGE_WORDS + COLUMN_BITS + b]) >> 16;
    __syncthreads();  // nobody reads the buffer any more
#pragma unroll
    for (int r = 0; r < 1 << R; ++r) store_shared(at_byte(buffer, combined<R>(own >> 16, by, r)), a[r]);
    __syncthreads();  // the tile is complete
    const u32 maps = to + STAGE_WORDS + COLUMN_BITS + R, count = u32(PASS[to]);
    if (PASS[to] >> 32 & 1) {
        u32 first = u32(next >> 32) ^ u32(PASS[to] >> 40);
        for (u32 at = maps; at < maps + MAP_WORDS * count; at += MAP_WORDS)
            if ((base & PASS[at + 1]) == PASS[at + 2]) first ^= u32(PASS[at]);
#pragma unroll
        for (int b = 0; b < R; ++b) by[b] = u32(PASS[to + STAGE_WORDS + COLUMN_BITS + b] >> 32);
#pragma unroll
        for (int r = 0; r < 1 << R; ++r) a[r] = load_shared(at_byte(buffer, combined<R>(first, by, r)));
    } else {
#pragma unroll
        for (int b = 0; b < R; ++b) by[b] = u32(PASS[to + STAGE_WORDS + COLUMN_BITS + b]) & 0xffff;
#pragma unroll
        for (int r = 0; r < 1 << R; ++r) a[r] = load_shared(buffer + swizzled<T>(mapped(combined<R>(u32(next) & 0xffff, by, r), maps, count, base)));
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
    const u32 addresses = HEADER_WORDS + gaps;
    u32 at = addresses + 2 * (COLUMN_BITS + R);
    cplx<T> a[1 << R];
    u64 step[R], start = base ^ thread_columns(addresses);
    u32 unknown = 0;  // registers whose wires are not known
#pragma unroll
    for (int b = 0; b < R; ++b) {
        step[b] = PASS[addresses + COLUMN_BITS + b];
        if (step[b] & ~known) unknown |= 1u << b;
    }
    if (start & ~known) unknown = 1u << R;
#pragma unroll
    for (int r = 0; r < 1 << R; ++r) a[r] = (r | 1 << R) & unknown ? cplx<T>{T(0), T(0)} : load_global(states + combined<R>(start, step, r));
    u32 own = 0, stage = at;  // lower half of the columns of this thread's bits
    for (u32 s = 0; s < stages; ++s) {
        const u64 next = thread_columns(at + STAGE_WORDS);
        if (s) exchange<T, R>(a, buffer, stage, own, at, next, base);
        own = u32(next);
        stage = at;
        const u32 operations = u32(PASS[at + 1]), j = own & 0xffff;  // the places of this thread that are 1
        at += STAGE_WORDS + COLUMN_BITS + R + MAP_WORDS * u32(PASS[at]);
        for (u32 o = 0; o < operations; ++o) {
            const u32 op = at, kind = u32(PASS[op]) & 255;
            at += OPERATION_WORDS + (kind == PHASE ? PHASE_WORDS + COLUMN_BITS + R : 0);
            if ((base & PASS[op + 2]) != PASS[op + 3]) continue;
            const u32 masks = u32(PASS[op + 1]), values = u32(PASS[op + 1] >> 32);
            const u32 own_mask = masks >> 16, own_value = values >> 16;  // of the places that stand in registers
            const bool applies = (j & masks & 0xffff) == (values & 0xffff);
            if (kind == PHASE) {
                phase<T, R>(a, op, terms, numbers, exact, base, width, buffer, products, own_mask, own_value, applies);
            } else if (applies) {
                const u32 set = u32(PASS[op] >> 8) & 255, nothing = u32(PASS[op] >> 16) & 255;
                const T* matrix = matrices + u32(PASS[op + 4]);
                if (kind == DENSE_MATRIX) multiply_set<T, R, false, IS_BATCH>(a, set, matrix, own_mask, own_value, nothing);
                else if (kind == REAL_MATRIX) multiply_set<T, R, true, IS_BATCH>(a, set, matrix, own_mask, own_value, nothing);
                else flip<T, R>(a, set, own_mask, own_value);
            }
        }
    }
    start = base ^ thread_columns(addresses + COLUMN_BITS + R);
#pragma unroll
    for (int b = 0; b < R; ++b) step[b] = PASS[addresses + 2 * COLUMN_BITS + R + b];
#pragma unroll
    for (int r = 0; r < 1 << R; ++r) store_global(states + combined<R>(start, step, r), a[r]);
}
