// The part of CUDA that kernels use, for g++. The threads of a block are fibers that meet at barriers;
// blocks run one after another. Between two barriers the threads run in any order that is asked for,
// and shared memory begins as NaN, so a missing barrier changes results.
#pragma once
#ifndef __x86_64__
#include <ucontext.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <vector>

#define __global__
#define __device__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))

namespace host {
constexpr size_t STACK_BYTES = 64 << 10;
constexpr unsigned WARP = 32;
enum Access : uint8_t { GLOBAL_LOAD, GLOBAL_STORE, SHARED_LOAD, SHARED_STORE };
struct Touch {
    Access access;
    uint8_t size;
    uint64_t address;
};

// A stack and the registers of what runs on it. On x86-64 six registers are enough: swapcontext of the
// C library asks the kernel twice each time.
#ifdef __x86_64__
struct Context {
    void* stack_pointer = nullptr;
};
extern "C" void host_switch(void** save, void* load);
__asm__(R"(
.text
.local host_switch
.type host_switch, @function
host_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size host_switch, .-host_switch
)");
inline void switch_context(Context& from, Context& to) { host_switch(&from.stack_pointer, to.stack_pointer); }
inline void begin_context(Context& context, char* stack, void (*start)()) {
    void** top = reinterpret_cast<void**>((uintptr_t(stack) + STACK_BYTES) & ~uintptr_t(15)) - 2;
    *top = reinterpret_cast<void*>(start);  // what `ret` finds, behind six registers
    context.stack_pointer = top - 6;
}
#else
struct Context {
    ucontext_t context;
};
inline void switch_context(Context& from, Context& to) { swapcontext(&from.context, &to.context); }
inline void begin_context(Context& context, char* stack, void (*start)()) {
    getcontext(&context.context);
    context.context.uc_stack.ss_sp = stack;
    context.context.uc_stack.ss_size = STACK_BYTES;
    makecontext(&context.context, start, 0);
}
#endif

struct Fiber {
    Context context;
    std::unique_ptr<char[]> stack{new char[STACK_BYTES]};
    bool is_done = false;
    std::vector<Touch> touched;
};
// By kind of access, over all warps: requests, memory transactions, and the fewest possible.
struct Tally {
    uint64_t requests[4] = {}, transactions[4] = {}, fewest[4] = {};
};

inline unsigned thread_index, block_index, threads_per_block;
inline std::vector<Fiber> fibers;  // of the largest block so far
inline Context scheduler;
inline char* shared;
inline uint64_t shuffled[1024];
inline bool is_tracing;
inline Tally tally;

// A barrier may be left out, to see whether tests notice: by file and line, 0: none.
inline char skipped_file[64];
inline int skipped_line;

inline void wait_at_barrier() { switch_context(fibers[thread_index].context, scheduler); }

inline void barrier(const char* path, int line) {
    const char* name = strrchr(path, '/');
    if (line != skipped_line || strcmp(name ? name + 1 : path, skipped_file)) wait_at_barrier();
}

inline void trace_access(Access access, const void* at, size_t size) {
    if (is_tracing) fibers[thread_index].touched.push_back({access, uint8_t(size), uint64_t(at)});
}

// Wavefronts that a request of shared memory takes: 128 bytes each, of 8 threads with 16 bytes, of 16
// with 8; more where addresses of one of them are different words of one bank.
inline unsigned wavefronts(const std::vector<Touch>& request) {
    const size_t size = request[0].size, at_once = std::min<size_t>(WARP, 128 / size);
    unsigned found = 0;
    for (size_t first = 0; first < request.size(); first += at_once) {
        std::vector<uint64_t> words;
        for (size_t k = first; k < std::min(request.size(), first + at_once); ++k) words.push_back(request[k].address / size);
        std::sort(words.begin(), words.end());
        words.erase(std::unique(words.begin(), words.end()), words.end());
        unsigned bank[WARP] = {}, worst = 0;
        for (uint64_t word : words) worst = std::max(worst, ++bank[word % at_once]);
        found += worst;
    }
    return found;
}

// Sectors of 32 bytes that a request of global memory touches.
inline unsigned sectors(const std::vector<Touch>& request) {
    std::vector<uint64_t> found;
    for (const Touch& t : request)
        for (uint64_t s = t.address / 32; s <= (t.address + t.size - 1) / 32; ++s) found.push_back(s);
    std::sort(found.begin(), found.end());
    return unsigned(std::unique(found.begin(), found.end()) - found.begin());
}

// The k-th accesses of a warp's threads are one request: traced kernels do not diverge in them.
inline void add_to_tally() {
    for (size_t first = 0; first < threads_per_block; first += WARP) {
        for (size_t k = 0;; ++k) {
            std::vector<Touch> request;
            for (size_t t = first; t < std::min<size_t>(threads_per_block, first + WARP); ++t)
                if (k < fibers[t].touched.size()) request.push_back(fibers[t].touched[k]);
            if (request.empty()) break;
            const Access access = request[0].access;
            const bool is_global = access <= GLOBAL_STORE;
            const uint64_t bytes = request.size() * request[0].size;
            tally.requests[access] += 1;
            tally.fewest[access] += is_global ? (bytes + 31) / 32 : (bytes + 127) / 128;
            tally.transactions[access] += is_global ? sectors(request) : wavefronts(request);
        }
    }
}

inline const std::function<void()>* body;
inline void run_thread() {
    (*body)();
    fibers[thread_index].is_done = true;
    wait_at_barrier();  // it is not continued
}

// All threads of a block, from barrier to barrier. order: 0 forward, 1 backward, otherwise the seed of
// an order that differs at each barrier.
inline void run_block(std::vector<unsigned>& turn, unsigned order, uint64_t& word) {
    for (unsigned t : turn) {
        fibers[t].is_done = false;
        fibers[t].touched.clear();
        begin_context(fibers[t].context, fibers[t].stack.get(), run_thread);
    }
    for (size_t left = turn.size(); left;) {
        if (order > 1)
            for (size_t k = turn.size(); k > 1; --k) {
                word = word * 6364136223846793005ull + 1442695040888963407ull;
                std::swap(turn[k - 1], turn[(word >> 33) % k]);
            }
        size_t ended = 0;
        for (unsigned t : turn) {
            thread_index = t;
            switch_context(scheduler, fibers[t].context);
            ended += fibers[t].is_done;
        }
        left -= ended;
        if (ended && left) {
            fprintf(stderr, "%zu threads of a block ended and %zu wait at a barrier\n", ended, left);
            abort();
        }
    }
}

inline void launch(unsigned grid, unsigned block, size_t shared_bytes, unsigned order, bool is_traced, const std::function<void()>& call) {
    if (fibers.size() < block) fibers.resize(block);
    std::vector<unsigned> turn(block);
    std::iota(turn.begin(), turn.end(), 0u);
    if (order == 1) std::reverse(turn.begin(), turn.end());
    uint64_t word = order;
    body = &call, threads_per_block = block, is_tracing = is_traced;
    for (block_index = 0; block_index < grid; ++block_index) {
        void* memory = nullptr;
        if (posix_memalign(&memory, 128, std::max<size_t>(shared_bytes, 1))) abort();  // exact: a sanitizer knows its end
        memset(memory, 0xff, shared_bytes);  // NaN
        shared = static_cast<char*>(memory);
        run_block(turn, order, word);
        free(memory);
        if (is_traced) add_to_tally();
    }
}
}  // namespace host

struct ThreadIndex {
    struct {
        operator unsigned() const { return host::thread_index; }
    } x;
};
struct BlockIndex {
    struct {
        operator unsigned() const { return host::block_index; }
    } x;
};
struct BlockSize {
    struct {
        operator unsigned() const { return host::threads_per_block; }
    } x;
};
inline ThreadIndex threadIdx;
inline BlockIndex blockIdx;
inline BlockSize blockDim;

#define __syncthreads() host::barrier(__FILE__, __LINE__)
template <class T> T __shfl_xor_sync(unsigned, T value, int mask) {  // all threads of the block call it
    static_assert(sizeof(T) <= 8);
    memcpy(&host::shuffled[host::thread_index], &value, sizeof(T));
    host::wait_at_barrier();
    T found;
    memcpy(&found, &host::shuffled[host::thread_index ^ unsigned(mask)], sizeof(T));
    host::wait_at_barrier();
    return found;
}
template <class T> T atomicAdd(T* at, T value) {
    const T old = *at;
    *at = old + value;
    return old;
}
inline uint64_t __umul64hi(uint64_t a, uint64_t b) { return uint64_t((unsigned __int128)a * b >> 64); }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __clz(unsigned v) { return __builtin_clz(v); }
using std::fma;
