// Runs unchanged CUDA kernels on a CPU: one block at a time, its threads one after the other.
//
// A thread runs until it ends or must wait for others; then the next one begins, on a stack of its own. So a kernel
// without barriers takes one stack and no switches. What a launch may touch is copied first, with guards around it, and
// the launch is repeated with the threads in ascending, descending and shuffled order: a kernel whose result depends on
// the order has a race. Shared memory begins as NaN, in every block, in memory of its own that a sanitizer watches.
#include "shim.h"
#include <cstdlib>
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
uint64_t lanes[1024];

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
static size_t begun, ended;
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
        while (begun < order_->size()) {
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

static void run_block(const std::function<void()>& body, const std::vector<unsigned>& order) {
    size_t n = order.size();
    body_ = &body, order_ = &order, begun = ended = 0;
    std::vector<Fiber*> waiting;
    auto settle = [&](Fiber* fiber) {
        if (!fiber->idle) waiting.push_back(fiber);
    };
    while (ended < n) {
        while (begun < n) {
            Fiber* fiber = fresh();
            run(fiber);
            settle(fiber);
        }
        if (waiting.empty()) continue;
        std::vector<size_t> place(n);
        for (size_t k = 0; k < n; k++) place[order[k]] = k;
        std::sort(waiting.begin(), waiting.end(), [&](Fiber* a, Fiber* b) { return place[a->thread] < place[b->thread]; });
        std::vector<Fiber*> ready, rest;
        std::map<unsigned, std::pair<unsigned, unsigned>> warps;  // of each: those that wait for it, and all that live
        for (Fiber* fiber : waiting) warps[fiber->thread / 32].first += fiber->wait == WARP, warps[fiber->thread / 32].second++;
        for (Fiber* fiber : waiting) {
            auto [there, alive] = warps[fiber->thread / 32];
            (fiber->wait == WARP && there == alive ? ready : rest).push_back(fiber);
        }
        if (ready.empty()) {
            bool all = std::all_of(rest.begin(), rest.end(), [](Fiber* fiber) { return fiber->wait == BLOCK; });
            if (!all || rest.size() != n) {
                error = all ? "some threads wait at __syncthreads, others have ended" : "threads wait for each other at different barriers";
                for (Fiber* fiber : waiting) fibers.erase(std::find(fibers.begin(), fibers.end(), fiber));  // abandoned
                break;
            }
            std::swap(ready, rest);
        }
        waiting = rest;
        for (Fiber* fiber : ready) {
            fiber->wait = NOTHING;
            current = fiber;
            become(fiber->thread);
            run(fiber);
            settle(fiber);
        }
    }
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
        std::iota(order.begin(), order.end(), 0);
        if (o == 1) std::reverse(order.begin(), order.end());
        std::vector<unsigned> blocks(grid[0] * (size_t)grid[1] * grid[2]);
        std::iota(blocks.begin(), blocks.end(), 0);
        if (o == 1) std::reverse(blocks.begin(), blocks.end());
        if (o == 2) std::shuffle(blocks.begin(), blocks.end(), random);
        for (unsigned b : blocks) {
            if (o == 2) std::shuffle(order.begin(), order.end(), random);
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
