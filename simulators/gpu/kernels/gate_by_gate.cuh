// Gate-by-gate sampling: the program of simulators/lines/program.py, one shot at a time for each block of
// threads; see tensornetwork/sweep/kernel.py, whose arrays these are and whose draws. Threads divide the
// values of the tensors; one of them draws. Arithmetic in double precision.
#pragma once
#include "small.cuh"

enum LineOperation { LINE_MULTIPLY, LINE_SUM, LINE_SELECT, LINE_KEEP, LINE_DRAW, LINE_SCALE, LINE_BEGIN };
enum LineFactor { LINE_UNITARY, LINE_PAIR, LINE_INVERSE };
enum LineError { LINE_WITHIN, LINE_DRAWN_WITHIN, LINE_ON_SEGMENT, LINE_DRAWN_ON_SEGMENT, LINE_DRAWN_ON_PAIR, LINE_MEASURED };
enum LineHeader {
    LINE_COUNT, LINE_SEGMENTS, LINE_PAIRS, LINE_LAYERS, LINE_CODE, LINE_CODE_BEGINS, LINE_FIRSTS, LINE_FIRST_BEGINS, LINE_DRAWS,
    LINE_PAIRS_OF, LINE_PAIRS_BEGINS, LINE_ERRORS, LINE_ERRORS_WITHIN, LINE_ERRORS_AFTER, LINE_ENDS, LINE_FLIPS, LINE_RECORDS, LINE_COLUMNS
};
enum { LINE_TABLE = 64, LINE_FIELDS = 10, LINE_WORD = 60, LINE_WITHIN_SIZE = 8, LINE_ON_SIZE = 5, LINE_PAIR_SIZE = 9 };
constexpr double LINE_LEAST_FACTOR = 1e-9;  // magnitude of a diagonal gate's factors, which may be divided by
enum : u64 { LINE_FIRST_DRAW = 1ull << 61 };  // of an operator at location 0

// One shot. Own numbers: matrices of its unitaries and gates (8 each), then of each segment its value,
// whether it is flipped, and two factors. entries[from] .. entries[end - 1]: ranks of its errors.
struct LineShot {
    const i64* ints;
    const double* reals;
    const i64* entries;
    double* own;
    unsigned char* record;  // columns: bits that were measured, and what follows from them
    u64 shot, seed, binding;
    int from, end, segments, pairs;

    __device__ __forceinline__ double* value(i64 segment) const { return own + 8 * (segments + pairs) + segment; }
    __device__ __forceinline__ double* flip(i64 segment) const { return own + 8 * (segments + pairs) + segments + segment; }
    __device__ __forceinline__ cplx<double>* factor(i64 segment, int v) const {
        return reinterpret_cast<cplx<double>*>(own + 8 * (segments + pairs) + 2 * segments + 4 * segment) + v;
    }
    __device__ __forceinline__ cplx<double>* matrix(i64 number) const { return reinterpret_cast<cplx<double>*>(own + 8 * number); }
    __device__ __forceinline__ cplx<double> number(i64 at) const { return {reals[at], reals[at + 1]}; }

    __device__ __forceinline__ double uniform(u64 draw) const {
        u64 words[4];
        philox(shot / 4 + 1, draw, seed, binding, words);
        const u64 odd = 0 - (shot & 1), upper = 0 - (shot >> 1 & 1);  // masks, no index: the words stay in registers
        const u64 word = (~upper & ((~odd & words[0]) | (odd & words[1]))) | (upper & ((~odd & words[2]) | (odd & words[3])));
        return double(word >> 11) * (1.0 / 9007199254740992.0);
    }

    // First place of the ascending entries with one of at least `rank`.
    __device__ __forceinline__ int lower_bound(i64 rank) const {
        int begin = from, last = end;
        while (begin < last) {
            const int middle = (begin + last) / 2;
            if (entries[middle] < rank) begin = middle + 1;
            else last = middle;
        }
        return begin;
    }

    __device__ __forceinline__ const i64* error(i64 k) const { return ints + ints[LINE_ERRORS] + LINE_FIELDS * entries[k]; }
    // Whether the flag of an error is 1, or it has none.
    __device__ __forceinline__ bool acts(const i64* error) const { return error[9] < 0 || record[error[9]] > 0; }

    // Draw the value of a segment that begins, and the operators within its unitary; write its own
    // unitary. zero, one: amplitudes of the value before.
    __device__ __forceinline__ void draw(i64 segment, cplx<double> zero, cplx<double> one) const {
        const i64 before = segment - 1;
        cplx<double> m00 = number(8 * segment), m01 = number(8 * segment + 2), m10 = number(8 * segment + 4), m11 = number(8 * segment + 6);
        if (*flip(before) > 0.5) {
            const cplx<double> top = m00, bottom = m10;
            m00 = m01, m01 = top, m10 = m11, m11 = bottom;
        }
        const cplx<double> f0 = *factor(before, 0), f1 = *factor(before, 1);
        m00 = mul(m00, f0), m01 = mul(m01, f1), m10 = mul(m10, f0), m11 = mul(m11, f1);
        const double drawn = uniform(u64(ints[ints[LINE_DRAWS] + segment]));
        const i64* within = ints + ints[LINE_ERRORS_WITHIN] + 2 * segment;
        int low = 0, high = 0, choices = 1;
        if (within[1] > within[0]) {
            low = lower_bound(within[0]);
            for (high = low; high < end && entries[high] < within[1]; ++high)
                if (acts(error(high))) choices *= int(error(high)[6]);
        }
        // All combinations of the operators and both values, drawn together: their weights are summed,
        // then the drawn one is found, then its product is made.
        double left = 0.0;
        cplx<double> p00, p01, p10, p11;
        int chosen = 0, bit = 0;
#pragma unroll 1
        for (int pass = 0; pass < 3; ++pass) {
            if (pass == 1) left *= drawn;
            bool is_done = false;
#pragma unroll 1
            for (int choice = pass == 2 ? chosen : 0; choice < choices && !is_done; ++choice) {
                p00 = m00, p01 = m01, p10 = m10, p11 = m11;
                int rest = choice;
#pragma unroll 1
                for (int k = low; k < high; ++k) {
                    const i64* e = error(k);
                    if (!acts(e)) continue;
                    const int count = int(e[6]);
                    const i64 at = e[7] + LINE_WITHIN_SIZE * (rest % count);
                    rest /= count;
                    const cplx<double> a = number(at), b = number(at + 2), c = number(at + 4), d = number(at + 6);
                    const cplx<double> q00 = p00, q01 = p01;
                    p00 = mul_add(b, p10, mul(a, q00)), p01 = mul_add(b, p11, mul(a, q01));
                    p10 = mul_add(d, p10, mul(c, q00)), p11 = mul_add(d, p11, mul(c, q01));
                }
                if (pass == 2) break;
#pragma unroll
                for (int v = 0; v < 2; ++v) {
                    const double weight = square(v ? mul_add(p11, one, mul(p10, zero)) : mul_add(p01, one, mul(p00, zero)));
                    if (pass == 0) left += weight;
                    else if (!is_done && weight > 0.0) {
                        chosen = choice, bit = v;
                        left -= weight;
                        is_done = left < 0.0;
                    }
                }
            }
        }
        const double first = square(p00) + square(p10), second = square(p01) + square(p11);
        double size = first > second ? first : second;
        size = sqrt(size > 1e-300 ? size : 1e-300);
        cplx<double>* result = matrix(segment);
        result[0] = {p00.x / size, p00.y / size}, result[1] = {p01.x / size, p01.y / size};
        result[2] = {p10.x / size, p10.y / size}, result[3] = {p11.x / size, p11.y / size};
        *value(segment) = double(bit);
    }

    // Flip the value of a segment in its diagonal gates from the one with this number on.
    __device__ __forceinline__ void flip_gates(i64 segment, i64 first) const {
        const i64* begins = ints + ints[LINE_PAIRS_BEGINS] + segment;
#pragma unroll 1
        for (i64 k = begins[0] + first; k < begins[1]; ++k) {
            const i64 which = ints[ints[LINE_PAIRS_OF] + k];
            cplx<double>* gate = matrix(segments + (which >> 1));
            for (int other = 0; other < 2; ++other) {
                cplx<double>* one = gate + (which & 1 ? 2 * other : other);
                cplx<double>* two = one + (which & 1 ? 1 : 2);
                const double x = one->x, y = one->y;  // of numbers, not of structs: they stay in registers
                one->x = two->x, one->y = two->y, two->x = x, two->y = y;
            }
        }
    }

    // Apply an operator of an error on segments.
    __device__ __forceinline__ void apply(const i64* error, i64 chosen) const {
        const i64 first = error[1], second = error[3], gate = error[5];
        const bool is_pair = error[0] == LINE_DRAWN_ON_PAIR;
        const i64 at = error[7] + (is_pair ? LINE_PAIR_SIZE : LINE_ON_SIZE) * chosen;
        const int mask = int(reals[at]), is_flipped = int(*flip(first));
        if (is_pair) {
            const int is_other = int(*flip(second));
            for (int k = 0; k < 4; ++k) {
                const int a = k & 1, b = k >> 1;
                cplx<double>* to = matrix(segments + (gate >> 1)) + (gate & 1 ? 2 * b + a : 2 * a + b);
                *to = mul(*to, number(at + 1 + 2 * ((a ^ is_flipped) | (b ^ is_other) << 1)));
                if (plain_square(*to) < LINE_LEAST_FACTOR * LINE_LEAST_FACTOR) *to = {LINE_LEAST_FACTOR, 0.0};
            }
        } else
            for (int v = 0; v < 2; ++v) *factor(first, v) = mul(*factor(first, v), number(at + 1 + 2 * (v ^ is_flipped)));
#pragma unroll 1
        for (int side = 0; side < 2; ++side)
            if (mask >> side & 1) {
                const i64 segment = error[side ? 3 : 1];
                *flip(segment) = 1.0 - *flip(segment);
                flip_gates(segment, error[side ? 4 : 2]);
            }
    }

    // Measure a segment: write the bit that is read, and begin another segment with the true one, or let
    // only the known value of this one go on.
    __device__ __forceinline__ void measure(const i64* error) const {
        const int known = int(*value(error[1]));
        int bit = known ^ int(*flip(error[1])) ^ int(error[2]);
        if (error[3] >= 0) *value(error[3]) = double(bit);
        else *factor(error[1], 1 - known) = {0.0, 0.0};
        const double wrong = reals[error[7] + bit];
        if (wrong > 0.0 && uniform(u64(error[8])) < wrong) bit ^= 1;
        record[error[4]] = (unsigned char)bit;
    }

    // Write columns of the record by the table of an event.
    __device__ __forceinline__ void write(const i64* error) const {
        const i64* reads = ints + ints[LINE_RECORDS] + error[1];
        i64 setting = 0;
        for (i64 j = 0; j < reads[0]; ++j) setting |= i64(record[reads[1 + j]]) << j;
        const i64* writes = reads + 1 + reads[0];
        const i64* words = writes + 1 + writes[0] + setting * ((writes[0] + LINE_WORD - 1) / LINE_WORD);
        for (i64 j = 0; j < writes[0]; ++j) record[writes[1 + j]] = (unsigned char)(words[j / LINE_WORD] >> (j % LINE_WORD) & 1);
    }

    // Apply the errors on segments after the draws of a layer, and what acts on the record. They permute
    // values, so their operators depend on the values alone.
    __device__ __forceinline__ void errors_after(i64 layer) const {
        const i64* begins = ints + ints[LINE_ERRORS_AFTER] + 2 * layer;
        if (begins[1] <= begins[0]) return;
#pragma unroll 1
        for (int k = lower_bound(begins[0]); k < end && entries[k] < begins[1]; ++k) {
            const i64* error = this->error(k);
            if (!acts(error)) continue;
            if (error[0] >= LINE_MEASURED) {
                if (error[0] == LINE_MEASURED) measure(error);
                else write(error);
                continue;
            }
            i64 chosen = 0;
            if (error[0] != LINE_ON_SEGMENT) {
                const bool is_pair = error[0] == LINE_DRAWN_ON_PAIR;
                int v = int(*value(error[1])) ^ int(*flip(error[1]));
                if (is_pair) v |= (int(*value(error[3])) ^ int(*flip(error[3]))) << 1;
                const i64 size = is_pair ? LINE_PAIR_SIZE : LINE_ON_SIZE, at = error[7] + 1 + 2 * v;
                double total = 0.0;
                for (i64 k = 0; k < error[6]; ++k) total += plain_square(number(at + size * k));
                double left = total * uniform(LINE_FIRST_DRAW + u64(error[8]));
                for (i64 k = 0; k < error[6] && left >= 0.0; ++k) {
                    const double weight = plain_square(number(at + size * k));
                    if (weight > 0.0) chosen = k, left -= weight;
                }
            }
            apply(error, chosen);
        }
    }

    static __device__ __forceinline__ double plain_square(cplx<double> z) { return z.x * z.x + z.y * z.y; }

    // Table of the product of the factors at `at`, for all values of its axes: `entries` of them.
    // Ends with a barrier; returns the end of the factors.
    __device__ __forceinline__ i64 tabulate(i64 at, u32 size, cplx<double>* table) const {
        const i64 count = ints[at++];
        for (u32 e = threadIdx.x; e < size; e += blockDim.x) {
            cplx<double> product = {1.0, 0.0};
#pragma unroll 1
            for (const i64* f = ints + at; f < ints + at + 4 * count; f += 4) {
                const u32 a = f[2] < 0 ? u32(*value(~f[2])) : e >> f[2] & 1, b = f[3] < 0 ? u32(*value(~f[3])) : e >> f[3] & 1;
                cplx<double> z = matrix(f[1] + (f[0] == LINE_UNITARY ? 0 : segments))[2 * a + b];
                if (f[0] == LINE_INVERSE) {
                    const double size = plain_square(z);
                    z = {z.x / size, (0.0 - z.y) / size};
                }
                product = mul(product, z);
            }
            table[e] = product;
        }
        __syncthreads();
        return at + 4 * count;
    }
};

__device__ __forceinline__ double warp_sum(double value) {
    for (int lane = 16; lane; lane >>= 1) value += __shfl_xor_sync(~0u, value, lane);
    return value;
}
__device__ __forceinline__ double sum_over_warps(const double* scratch) {
    double total = 0.0;
    for (u32 warp = 0; warp < blockDim.x / 32; ++warp) total += scratch[4 * warp];
    return total;
}
// Sums of all threads' values, valid in all of them. scratch: 4 numbers for each warp; a barrier is to
// follow before it is written again.
__device__ __forceinline__ void sum_over_block(cplx<double>& a, cplx<double>& b, double* scratch) {
    a = {warp_sum(a.x), warp_sum(a.y)}, b = {warp_sum(b.x), warp_sum(b.y)};
    double* own = scratch + threadIdx.x / 32 * 4;
    if (threadIdx.x % 32 == 0) own[0] = a.x, own[1] = a.y, own[2] = b.x, own[3] = b.y;
    __syncthreads();
    a = {sum_over_warps(scratch), sum_over_warps(scratch + 1)}, b = {sum_over_warps(scratch + 2), sum_over_warps(scratch + 3)};
}

// Values of the lines of shots first .. last - 1, of which `origin` is row 0 of `ends` and `out`: bytes
// [shots, lines + columns of their records]. A block of threads has the shots of one residue of their number modulo `blocks`, one
// after another, with `own_size` numbers of its own and `stride` values of tensors: the kept ones, and
// behind them the one that changes, unless that is in shared memory (is_shared).
// Shared memory: LINE_TABLE complex numbers, 4 numbers for each of 8 warps, and that tensor.
template <class T>
__device__ __forceinline__ void sample_lines(const i64* ints, const double* reals, const i64* entries, const i64* ends, u64 origin, u64 first, u64 last, int blocks,
                                             u64 seed, u64 binding, double* own, u64 own_size, cplx<T>* tensors, u64 stride, u64 kept_size, int is_shared,
                                             unsigned char* out) {
    SHARED_MEMORY(raw);
    cplx<double>* table = reinterpret_cast<cplx<double>*>(raw);
    double* scratch = reinterpret_cast<double*>(table + LINE_TABLE);
    cplx<T>* kept = tensors + blockIdx.x * stride;
    cplx<T>* tensor = is_shared ? reinterpret_cast<cplx<T>*>(scratch + 32) : kept + kept_size;
    LineShot s = {ints, reals, entries, own + blockIdx.x * own_size, nullptr, 0, seed, binding, 0, 0, int(ints[LINE_SEGMENTS]), int(ints[LINE_PAIRS])};
    const u32 id = threadIdx.x, threads = blockDim.x;
#pragma unroll 1
    for (u64 shot = first + blockIdx.x; shot < last; shot += blocks) {
        unsigned char* row = out + (shot - origin) * u64(ints[LINE_COUNT] + ints[LINE_COLUMNS]);
        s.record = row + ints[LINE_COUNT];
        s.shot = shot, s.from = int(ends[shot - origin]), s.end = int(ends[shot - origin + 1]);
        for (i64 k = id; k < 8 * (s.segments + s.pairs); k += threads) s.own[k] = reals[k];
        for (i64 k = id; k < 2 * s.segments; k += threads) {
            s.value(0)[k] = 0.0;
            *s.factor(k >> 1, k & 1) = {1.0, 0.0};
        }
        for (i64 k = id; k < ints[LINE_COLUMNS]; k += threads) s.record[k] = 0;
        __syncthreads();  // the shot has begun
#pragma unroll 1
        for (i64 layer = 0; layer <= ints[LINE_LAYERS]; ++layer) {
            if (layer) {
                const i64* firsts = ints + ints[LINE_FIRST_BEGINS] + layer - 1;
                const i64* begins = ints + ints[LINE_CODE_BEGINS] + layer - 1;
                i64 at = ints[LINE_CODE] + begins[0];
                const i64 end = ints[LINE_CODE] + begins[1];
                // Each operation ends with a barrier. The first one draws what begins from known values.
#pragma unroll 1
                for (bool is_first = true; is_first || at < end; is_first = false) {
                    const i64 kind = is_first ? i64(LINE_BEGIN) : ints[at++];
                    i64 drawn = id + (is_first ? firsts[0] : 0), drawn_end = is_first ? firsts[1] : 0;
                    const i64* segments = is_first ? ints + ints[LINE_FIRSTS] : ints;
                    cplx<double> zero = {0.0, 0.0}, one = {0.0, 0.0};
                    const int axes = kind <= LINE_SCALE ? int(ints[at]) : 0;
                    const u64 size = 1ull << axes;
                    if (kind == LINE_MULTIPLY) {
                        const int is_new = int(ints[at + 1]), count = int(ints[at + 2]);
                        const i64* places = ints + at + 3;
                        at = s.tabulate(at + 3 + count, 1u << (count + is_new), table);
                        for (u64 i = id; i < size; i += threads) {
                            u32 entry = 0;
                            for (int k = 0; k < count; ++k) entry |= u32(i >> places[k] & 1) << (k + is_new);
                            const cplx<double> x = widened(tensor[i]);
                            tensor[i] = narrowed<T>(mul(x, table[entry]));
                            if (is_new) tensor[size + i] = narrowed<T>(mul(x, table[entry + 1]));
                        }
                    } else if (kind == LINE_SUM || kind == LINE_SELECT) {
                        const u64 step = 1ull << ints[at + 1];
                        const bool is_sum = kind == LINE_SUM, has_factors = is_sum && ints[at + 2] > 0;
                        const u64 known = is_sum ? 0 : step * u64(*s.value(ints[at + 2]));
                        at = has_factors ? s.tabulate(at + 2, 2, table) : at + 3;
                        for (u64 base = 0; base < size / 2; base += threads) {
                            const u64 to = base + id, one = (to & ~(step - 1)) << 1 | (to & (step - 1));
                            cplx<double> x = {0.0, 0.0};
                            if (to < size / 2) {
                                x = widened(tensor[one | known]);
                                if (has_factors) x = mul(x, table[0]);
                                if (is_sum) {
                                    const cplx<double> y = widened(tensor[one | step]);
                                    const cplx<double> m = has_factors ? table[1] : cplx<double>{1.0, 0.0};
                                    x = {fma(y.x, m.x, fma(-y.y, m.y, x.x)), fma(y.x, m.y, fma(y.y, m.x, x.y))};
                                }
                            }
                            __syncthreads();  // read before the same place is written; later reads are behind it
                            if (to < size / 2) tensor[to] = narrowed<T>(x);
                        }
                    } else if (kind == LINE_KEEP) {
                        for (u64 i = id; i < size; i += threads) kept[ints[at + 1] + i] = tensor[i];
                        at += 2;
                    } else if (kind == LINE_SCALE) {
                        for (u64 i = id; i < size; i += threads) zero.x += square(widened(tensor[i]));
                        sum_over_block(zero, one, scratch);
                        const double by = zero.x > 0.0 ? sqrt(double(size) / zero.x) : 1.0;
                        for (u64 i = id; i < size; i += threads) tensor[i] = {T(tensor[i].x * by), T(tensor[i].y * by)};
                        at += 1;
                    } else if (kind == LINE_DRAW) {
                        const u64 step = 1ull << ints[at + 1];
                        const int count = ints[at + 3] < 0 ? 0 : int(ints[at + 4]);
                        const i64* places = ints + at + 5;
                        const cplx<T>* right = kept + ints[at + 3];
                        for (u64 j = id; j < size / 2; j += threads) {
                            const u64 i = (j & ~(step - 1)) << 1 | (j & (step - 1));
                            u64 entry = 0, other = 0;
#pragma unroll 1
                            for (int k = 0; k < count; ++k) {
                                entry |= (i >> places[k] & 1) << k;
                                other |= u64(step >> places[k] == 1) << k;
                            }
                            const cplx<double> a = widened(tensor[i]), b = widened(tensor[i | step]);
                            const cplx<double> x = count ? widened(right[entry]) : cplx<double>{1.0, 0.0};
                            const cplx<double> y = count ? widened(right[entry | other]) : cplx<double>{1.0, 0.0};
                            zero = mul_add(a, x, zero), one = mul_add(b, y, one);  // products of L and R
                        }
                        sum_over_block(zero, one, scratch);
                        segments = ints + at + 2, drawn_end = 1;
                        at += 5 + ints[at + 4];
                    } else if (id == 0)
                        tensor[0] = {T(1), T(0)};
#pragma unroll 1
                    for (; drawn < drawn_end; drawn += threads) {
                        if (is_first) one.x = *s.value(segments[drawn] - 1), zero.x = 1.0 - one.x;
                        s.draw(segments[drawn], zero, one);
                    }
                    __syncthreads();  // the operation is complete
                }
            }
            if (id == 0) s.errors_after(layer);
            __syncthreads();  // the layer is complete
        }
        for (i64 line = id; line < ints[LINE_COUNT]; line += threads) {
            const i64 segment = ints[ints[LINE_ENDS] + line];
            const int bit = int(*s.value(segment)) ^ int(*s.flip(segment)) ^ int(ints[ints[LINE_FLIPS] + line]);
            row[line] = (unsigned char)bit;
        }
        __syncthreads();  // its numbers are not read any more
    }
}
