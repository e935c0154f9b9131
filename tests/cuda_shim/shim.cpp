// Runs unchanged CUDA kernels on a CPU: one block at a time, its threads one after the other.
//
// A thread runs until it ends or must wait for others; then the next one begins, on a stack of its own. So a kernel
// without barriers takes one stack and no switches. What a launch may touch is copied first, with guards around it, and
// the launch is repeated with the threads in ascending, descending and shuffled order: a kernel whose result depends on
// the order has a race. Shared memory begins as NaN, in every block, in memory of its own that a sanitizer watches.
#include "shim.h"
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <vector>
#ifdef SHIM_THREADS
#include <barrier>
#include <memory>
#include <mutex>
#include <thread>
#else
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace shim {
static std::string error;
size_t dynamic_bytes;
char lanes[2][1024][64];
unsigned calls[1024];

struct Block {  // the shared memory of the block at work: by the place of its declaration, and the dynamic part as −1
    std::map<int, void*> memory;
    void* get(int id, size_t bytes) {
        void*& at = memory[id];
        if (!at) {
            if (posix_memalign(&at, 64, std::max<size_t>(bytes, 1))) abort();
            memset(at, 0xff, bytes);
        }
        return at;
    }
    void clear() {
        for (auto& [id, at] : memory) free(at);
        memory.clear();
    }
};
static Block block;

struct Transfer { void* to; const void* from; size_t bytes; bool zero; };
static std::vector<Transfer> given[1024];                // by each thread since its last commit
static std::deque<std::vector<Transfer>> committed[1024];
static bool at_once;
static void make(const Transfer& copy) {
    copy.zero ? memset(copy.to, 0, copy.bytes) : memcpy(copy.to, copy.from, copy.bytes);
}
void copy_async(void* to, const void* from, size_t bytes, bool zero) {
    if ((uintptr_t)to % bytes || (uintptr_t)from % bytes) error = "cp.async of what is not aligned";
    Transfer copy = {to, from, bytes, zero};
    at_once ? make(copy) : given[linear()].push_back(copy);
}
void commit_copies() { committed[linear()].push_back(std::exchange(given[linear()], {})); }
void wait_for_copies(size_t newest) {
    for (auto& groups = committed[linear()]; groups.size() > newest; groups.pop_front())
        for (const Transfer& copy : groups.front()) make(copy);
}
static void forget(unsigned threads) {
    for (unsigned i = 0; i < threads; i++) calls[i] = 0, given[i].clear(), committed[i].clear();
}
}  // namespace shim

#ifdef SHIM_THREADS  // every CUDA thread a thread of the system, for a sanitizer that looks for races
thread_local uint3 threadIdx;
static thread_local unsigned shim_linear;
uint3 blockIdx;
dim3 blockDim, gridDim;
namespace shim {
static std::unique_ptr<std::barrier<>> all;
static std::vector<std::unique_ptr<std::barrier<>>> warps;
static std::mutex lock;
unsigned linear() { return shim_linear; }
static void wait_for_block() { all->arrive_and_wait(); }
static void wait_for_warp() { warps[linear() / 32]->arrive_and_wait(); }
void* shared(int id, size_t bytes) {
    std::lock_guard<std::mutex> held(lock);
    return block.get(id, bytes);
}
static void run_block(const std::function<void()>& body, const std::vector<unsigned>& order) {
    unsigned n = order.size();
    all = std::make_unique<std::barrier<>>(n);
    warps.clear();
    for (unsigned w = 0; w < n; w += 32) warps.push_back(std::make_unique<std::barrier<>>(std::min(32u, n - w)));
    std::vector<std::thread> threads;
    for (unsigned i : order)
        threads.emplace_back([&, i] {
            shim_linear = i;
            threadIdx = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
            body();
            all->arrive_and_drop();
            warps[i / 32]->arrive_and_drop();
        });
    for (auto& thread : threads) thread.join();
    forget(n);
    block.clear();
}
}  // namespace shim
#else
uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;
namespace shim {
enum Wait { NOTHING, BLOCK, WARP };
constexpr size_t STACK = 128 * 1024;
struct Fiber {
    ucontext_t context;
    char* stack = (char*)malloc(STACK);
    unsigned thread = 0;
    Wait wait = NOTHING;
    bool idle = true;
    void* fake = nullptr;
};
static std::vector<Fiber*> fibers;
static ucontext_t scheduler;
static Fiber* current;
static const std::function<void()>* body_;
static const std::vector<unsigned>* order_;
static size_t begun, limit, ended;  // threads; those before the limit may begin
static const void* main_stack;
static size_t main_size;

unsigned linear() { return current->thread; }
static void become(unsigned i) {
    current->thread = i;
    threadIdx = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
}
static void to_scheduler() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&current->fake, main_stack, main_size);
#endif
    Fiber* me = current;
    swapcontext(&me->context, &scheduler);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(me->fake, nullptr, nullptr);
#endif
}
static void entry() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &main_stack, &main_size);
#endif
    for (;;) {
        while (begun < limit) {
            become((*order_)[begun++]);
            (*body_)();
            ended++;
        }
        current->idle = true;
        to_scheduler();
    }
}
static void run(Fiber* fiber) {
    current = fiber;
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, fiber->stack, STACK);
#endif
    swapcontext(&scheduler, &fiber->context);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}
static void park(Wait wait) {
    unsigned i = current->thread;
    current->wait = wait;
    to_scheduler();
    become(i);
}
static void wait_for_block() { park(BLOCK); }
static void wait_for_warp() { park(WARP); }
void* shared(int id, size_t bytes) { return block.get(id, bytes); }

static Fiber* fresh() {
    for (Fiber* fiber : fibers)
        if (fiber->idle) return fiber->idle = false, fiber;
    Fiber* fiber = new Fiber;
    fibers.push_back(fiber);
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack;
    fiber->context.uc_stack.ss_size = STACK;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, entry, 0);
    fiber->idle = false;
    return fiber;
}

// Between barriers of the block a warp goes on alone, then the next: what comes too early or too late for another shows.
static void run_block(const std::function<void()>& body, const std::vector<unsigned>& order) {
    size_t n = order.size();
    body_ = &body, order_ = &order, begun = ended = 0;
    auto waits_for_block = [](Fiber* fiber) { return fiber->wait == BLOCK; };
    std::vector<std::vector<Fiber*>> warps((n + 31) / 32);  // their threads that wait
    auto go_on = [&](std::vector<Fiber*>& warp) {
        while (!warp.empty() && std::none_of(warp.begin(), warp.end(), waits_for_block)) {
            for (Fiber* fiber : warp) {
                fiber->wait = NOTHING;
                current = fiber;
                become(fiber->thread);
                run(fiber);
            }
            std::erase_if(warp, [](Fiber* fiber) { return fiber->idle; });
        }
    };
    for (auto& warp : warps) {
        for (limit = begun; limit < n && order[limit] / 32 == order[begun] / 32;) limit++;
        while (begun < limit) {
            Fiber* fiber = fresh();
            run(fiber);
            if (!fiber->idle) warp.push_back(fiber);
        }
        go_on(warp);
    }
    while (ended < n) {
        std::vector<Fiber*> waiting;
        for (auto& warp : warps) waiting.insert(waiting.end(), warp.begin(), warp.end());
        bool all = std::all_of(waiting.begin(), waiting.end(), waits_for_block);
        if (!all || waiting.size() != n) {
            error = all ? "some threads wait at __syncthreads, others have ended" : "threads wait for each other at different barriers";
            for (Fiber* fiber : waiting) fibers.erase(std::find(fibers.begin(), fibers.end(), fiber));  // abandoned
            break;
        }
        for (Fiber* fiber : waiting) fiber->wait = NOTHING;
        for (auto& warp : warps) go_on(warp);
    }
    forget(n);
    block.clear();
}
}  // namespace shim
#endif

void __syncthreads() { shim::wait_for_block(); }
void __syncwarp(unsigned) { shim::wait_for_warp(); }

namespace shim {
constexpr size_t GUARD = 64;
struct Copy {
    void* original;
    size_t bytes;
    char* allocated;
    char* begin;
    std::vector<char> result;
};

// No read or write of a guard goes unseen where the address sanitizer watches; elsewhere, no write does.
static void watch(Copy& copy, bool on) {
#if defined(__SANITIZE_ADDRESS__)
    for (char* guard : {copy.allocated, copy.begin + copy.bytes})
        on ? __asan_poison_memory_region(guard, GUARD) : __asan_unpoison_memory_region(guard, GUARD);
#else
    (void)copy, (void)on;
#endif
}
static bool intact(const char* guard) {
    return std::all_of(guard, guard + GUARD, [](char c) { return c == (char)0xa5; });
}

// Warps in any order, and the threads of each; but no thread of another among them.
static void shuffle(std::vector<unsigned>& order, std::mt19937& random) {
    std::vector<unsigned> warps((order.size() + 31) / 32);
    std::iota(warps.begin(), warps.end(), 0);
    std::shuffle(warps.begin(), warps.end(), random);
    auto at = order.begin();
    for (unsigned warp : warps) {
        auto begin = at;
        for (unsigned i = 32 * warp; i < std::min<size_t>(32 * warp + 32, order.size()); i++) *at++ = i;
        std::shuffle(begin, at, random);
    }
}

const char* launch(
    void (*kernel)(void**), Argument* arguments, int count, const unsigned* grid, const unsigned* threads, size_t shared) {
    error.clear();
    gridDim = {grid[0], grid[1], grid[2]}, blockDim = {threads[0], threads[1], threads[2]}, dynamic_bytes = shared;
    std::vector<Copy> copies;
    std::vector<void*> pointers(count), values(count);
    std::vector<int> which(count, -1);
    for (int i = 0; i < count; i++) {
        values[i] = arguments[i].at;
        if (!arguments[i].bytes) continue;
        for (size_t k = 0; k < copies.size(); k++)
            if (copies[k].original == arguments[i].at) which[i] = k;
        if (which[i] < 0) {
            which[i] = copies.size();
            size_t bytes = arguments[i].bytes;
            void* memory;
            if (posix_memalign(&memory, 64, bytes + 2 * GUARD)) abort();
            memset(memory, 0xa5, bytes + 2 * GUARD);
            copies.push_back({arguments[i].at, bytes, (char*)memory, (char*)memory + GUARD, {}});
        }
    }
    for (int i = 0; i < count; i++)
        if (which[i] >= 0) pointers[i] = copies[which[i]].begin, values[i] = &pointers[i];
    std::vector<unsigned> order(threads[0] * threads[1] * threads[2]);
    std::mt19937 random(7);
    std::function<void()> body = [&] { kernel(values.data()); };
    static const char* names[] = {"ascending", "descending", "shuffled"};
    for (int o = 0; o < 3 && error.empty(); o++) {
        for (Copy& copy : copies) memcpy(copy.begin, copy.original, copy.bytes);
        for (Copy& copy : copies) watch(copy, true);
        at_once = o == 0;
        std::iota(order.begin(), order.end(), 0);
        if (o == 1) std::reverse(order.begin(), order.end());
        std::vector<unsigned> blocks(grid[0] * (size_t)grid[1] * grid[2]);
        std::iota(blocks.begin(), blocks.end(), 0);
        if (o == 1) std::reverse(blocks.begin(), blocks.end());
        if (o == 2) std::shuffle(blocks.begin(), blocks.end(), random);
        for (unsigned b : blocks) {
            if (o == 2) shuffle(order, random);
            blockIdx = {b % grid[0], b / grid[0] % grid[1], b / (grid[0] * grid[1])};
            run_block(body, order);
            if (!error.empty()) break;
        }
        for (Copy& copy : copies) {
            watch(copy, false);
            if (!intact(copy.allocated) || !intact(copy.begin + copy.bytes)) error = "written outside of an array";
            if (o == 0) copy.result.assign(copy.begin, copy.begin + copy.bytes);
            else if (error.empty() && memcmp(copy.result.data(), copy.begin, copy.bytes))
                error = std::string("the result depends on the order of threads: ascending and ") + names[o] + " differ";
        }
    }
    for (Copy& copy : copies) {
        if (error.empty()) memcpy(copy.original, copy.result.data(), copy.bytes);
        free(copy.allocated);
    }
    return error.empty() ? nullptr : error.c_str();
}
}  // namespace shim
