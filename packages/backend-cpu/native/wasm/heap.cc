// The heap: blocks in the order of memory, each after a header of one cache line. The smallest free one that is large
// enough is taken, and what is too much of it stays free; neighbours that are free become one. The system's memory only
// ever grows. Few calls come here: tensors are kept for reuse by src/memory.ts, a kernel's memory by its thread.
// Knows bytes.

#include "heap.h"

#include <atomic>
#include <new>

namespace diffmamba {
namespace {

constexpr uint64_t kLine = 64;
constexpr uint64_t kPage = 65536;
/// The last page is never used: an address past it would be 0.
constexpr uint64_t kEnd = (65536 - 1) * kPage;

/// Before each block, of `bytes` with this header.
struct alignas(kLine) Block {
  uint64_t bytes;
  /// Of a free block: the next free one, further on in memory.
  Block* next;

  char* end() { return reinterpret_cast<char*>(this) + bytes; }
};
static_assert(sizeof(Block) == kLine, "what follows a header is aligned as it is");

/// The linker puts this where its own data ends.
extern "C" char __heap_base;

/// Held by whoever reads or changes what follows. Never waited for with an instruction, since a page's main thread may not.
class Lock {
 public:
  Lock() {
    while (held.exchange(1, std::memory_order_acquire) != 0) {
    }
  }
  ~Lock() { held.store(0, std::memory_order_release); }

 private:
  static std::atomic<int32_t> held;
};
std::atomic<int32_t> Lock::held{0};

Block* first_free = nullptr;
/// Where the heap ends, which is where the module's memory did when it last grew.
char* heap_end = nullptr;

uint64_t round_up(uint64_t bytes, uint64_t unit) { return (bytes + unit - 1) / unit * unit; }

/// Puts a block among the free ones, joined with those beside it.
void insert(Block* block) {
  Block* before = nullptr;
  Block* after = first_free;
  while (after != nullptr && after < block) {
    before = after;
    after = after->next;
  }
  block->next = after;
  if (after != nullptr && block->end() == reinterpret_cast<char*>(after)) {
    block->bytes += after->bytes;
    block->next = after->next;
  }
  if (before == nullptr) {
    first_free = block;
  } else if (before->end() == reinterpret_cast<char*>(block)) {
    before->bytes += block->bytes;
    before->next = block->next;
  } else {
    before->next = block;
  }
}

/// Adds memory to the heap's end until a block of so many bytes is free there. Returns whether there is as much.
bool grow(uint64_t bytes) {
  if (heap_end == nullptr) {
    const uint64_t base = round_up(reinterpret_cast<uintptr_t>(&__heap_base), kLine);
    heap_end = reinterpret_cast<char*>(__builtin_wasm_memory_size(0) * kPage);
    auto* const block = reinterpret_cast<Block*>(static_cast<uintptr_t>(base));
    block->bytes = reinterpret_cast<uintptr_t>(heap_end) - base;
    insert(block);
  }
  Block* last = first_free;
  while (last != nullptr && last->next != nullptr) last = last->next;
  const bool joins = last != nullptr && last->end() == heap_end;
  const uint64_t have = joins ? last->bytes : 0;
  if (have >= bytes) return true;
  const uint64_t end = reinterpret_cast<uintptr_t>(heap_end);
  const uint64_t more = round_up(bytes - have, kPage);
  if (end + more > kEnd) return false;
  if (__builtin_wasm_memory_grow(0, more / kPage) == static_cast<size_t>(-1)) return false;
  auto* const block = reinterpret_cast<Block*>(heap_end);
  heap_end += more;
  block->bytes = more;
  insert(block);
  return true;
}

/// The smallest free block of so many bytes; `link` is what points to it.
Block* find(uint64_t bytes, Block**& link) {
  Block* best = nullptr;
  for (Block** at = &first_free; *at != nullptr; at = &(*at)->next) {
    if ((*at)->bytes >= bytes && (best == nullptr || (*at)->bytes < best->bytes)) {
      best = *at;
      link = at;
    }
  }
  return best;
}

}  // namespace

void* heap_allocate(uint64_t bytes) {
  if (bytes > kEnd) return nullptr;
  const uint64_t wanted = sizeof(Block) + round_up(bytes, kLine) + kLine;
  const Lock lock;
  Block** link = nullptr;
  Block* block = find(wanted, link);
  if (block == nullptr && grow(wanted)) block = find(wanted, link);
  if (block == nullptr) return nullptr;
  *link = block->next;
  const uint64_t left = block->bytes - wanted;
  if (left >= 2 * kLine) {
    block->bytes = wanted;
    auto* const rest = reinterpret_cast<Block*>(block->end());
    rest->bytes = left;
    insert(rest);
  }
  return block + 1;
}

void heap_free(void* memory) {
  if (memory == nullptr) return;
  const Lock lock;
  insert(static_cast<Block*>(memory) - 1);
}

}  // namespace diffmamba

void* operator new(size_t bytes, std::align_val_t, const std::nothrow_t&) noexcept {
  return diffmamba::heap_allocate(bytes);
}

void operator delete(void* memory, std::align_val_t) noexcept { diffmamba::heap_free(memory); }
