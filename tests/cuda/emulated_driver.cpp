// libcuda's functions that megdet_hvd.cuda.driver calls, without a GPU: device memory is shared
// memory of the host, a stream is a thread, a module is a shared library of kernels compiled for the
// CPU (emulated_kernel.h). Processes share memory through the same calls as with CUDA.
//
// EMULATED_CUDA_FAIL=cuIpcOpenMemHandle_v2:217 makes a call fail with a number.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {
struct Stream {
  std::mutex lock;
  std::condition_variable changed;
  std::deque<std::function<void()>> tasks;
  bool busy = false;
  Stream() {
    std::thread([this] {
      for (;;) {
        std::unique_lock<std::mutex> held(lock);
        changed.wait(held, [this] { return !tasks.empty(); });
        auto task = std::move(tasks.front());
        tasks.pop_front();
        busy = true;
        held.unlock();
        task();
        held.lock();
        busy = false;
        changed.notify_all();
      }
    }).detach();
  }
  void put(std::function<void()> task) {
    std::lock_guard<std::mutex> held(lock);
    tasks.push_back(std::move(task));
    changed.notify_all();
  }
  bool idle() {
    std::lock_guard<std::mutex> held(lock);
    return tasks.empty() && !busy;
  }
  void wait() {
    std::unique_lock<std::mutex> held(lock);
    changed.wait(held, [this] { return tasks.empty() && !busy; });
  }
};
struct Memory {
  int file;
  size_t size;
  bool own;
};
struct Function {
  void* (*pack)(void**);
  void (*run)(void*, unsigned, unsigned);
};
std::mutex state_lock;
// Never destroyed: streams' threads outlive main().
auto& streams = *new std::map<void*, Stream*>;
auto& memories = *new std::map<uint64_t, Memory>;
// Of two GPUs, whose memory and kernels are of GPU 0.
struct Context { int kept = 0; } primary[2];
thread_local auto& contexts = *new std::vector<void*>;

int failure(const char* call) {
  const char* wanted = getenv("EMULATED_CUDA_FAIL");
  if (!wanted) return 0;
  std::string text(wanted), name(call);
  if (text.rfind(name + ":", 0) != 0) return 0;
  return atoi(text.c_str() + name.size() + 1);
}
Stream* stream_of(void* id) {
  std::lock_guard<std::mutex> held(state_lock);
  auto& found = streams[id];
  if (!found) found = new Stream;
  return found;
}
}  // namespace

#define MAY_FAIL(call) \
  if (int number = failure(#call)) return number
#define WANTS_CONTEXT \
  if (contexts.empty()) return 201

extern "C" {
int cuInit(unsigned) { MAY_FAIL(cuInit); return 0; }
int cuGetErrorName(int number, const char** text) {
  static const std::map<int, const char*> names = {
      {1, "CUDA_ERROR_INVALID_VALUE"}, {2, "CUDA_ERROR_OUT_OF_MEMORY"},
      {100, "CUDA_ERROR_NO_DEVICE"}, {201, "CUDA_ERROR_INVALID_CONTEXT"},
      {217, "CUDA_ERROR_PEER_ACCESS_UNSUPPORTED"}, {500, "CUDA_ERROR_NOT_FOUND"},
      {801, "CUDA_ERROR_NOT_SUPPORTED"}};
  auto found = names.find(number);
  *text = found == names.end() ? nullptr : found->second;
  return found == names.end();
}
int cuGetErrorString(int number, const char** text) {
  *text = number == 217 ? "peer access is not supported between these two devices" : nullptr;
  return *text == nullptr;
}
int cuDeviceGet(int* found, int device) {
  if (device < 0 || device > 1) return 101;
  *found = device;
  return 0;
}
int cuModuleGetLoadingMode(int* mode) {
  const char* wanted = getenv("CUDA_MODULE_LOADING");
  *mode = wanted && !strcmp(wanted, "EAGER") ? 1 : 2;
  return 0;
}
int cuDevicePrimaryCtxRetain(void** context, int device) {
  std::lock_guard<std::mutex> held(state_lock);
  ++primary[device].kept;
  *context = &primary[device];
  return 0;
}
int cuDevicePrimaryCtxRelease_v2(int device) {  // the last takes the memory along
  std::lock_guard<std::mutex> held(state_lock);
  if (!primary[device].kept) return 201;
  if (--primary[device].kept || device) return 0;
  for (auto& [address, memory] : memories) {
    munmap((void*)address, memory.size);
    close(memory.file);
  }
  memories.clear();
  return 0;
}
int cuCtxGetCurrent(void** context) {
  *context = contexts.empty() ? nullptr : contexts.back();
  return 0;
}
int cuCtxPushCurrent_v2(void* context) { contexts.push_back(context); return 0; }
int cuCtxPopCurrent_v2(void** context) {
  WANTS_CONTEXT;
  *context = contexts.back();
  contexts.pop_back();
  return 0;
}
int cuCtxSynchronize() {
  WANTS_CONTEXT;
  std::map<void*, Stream*> all;
  { std::lock_guard<std::mutex> held(state_lock); all = streams; }
  for (auto& [id, stream] : all) stream->wait();
  return 0;
}
int cuStreamQuery(void* stream) { return stream_of(stream)->idle() ? 0 : 600; }

int cuModuleLoadData(void** module, const void* data) {
  WANTS_CONTEXT;
  MAY_FAIL(cuModuleLoadData);
  *module = dlopen((const char*)data, RTLD_NOW | RTLD_LOCAL);
  if (!*module) fprintf(stderr, "%s\n", dlerror());
  return *module ? 0 : 200;
}
int cuModuleGetFunction(void** found, void* module, const char* name) {
  auto pack = dlsym(module, (std::string("pack_") + name).c_str());
  auto run = dlsym(module, (std::string("run_") + name).c_str());
  if (!pack || !run) return 500;
  *found = new Function{(void* (*)(void**))pack, (void (*)(void*, unsigned, unsigned))run};
  return 0;
}
int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                   unsigned bz, unsigned shared, void* stream, void** arguments, void** extra) {
  WANTS_CONTEXT;
  MAY_FAIL(cuLaunchKernel);
  if (contexts.back() != &primary[0]) return 400;  // the kernel's is another one
  if (!gx || !bx || gy * gz * by * bz != 1 || shared || extra) return 1;
  auto* kernel = (Function*)function;
  void* packed = kernel->pack(arguments);
  stream_of(stream)->put([=] { kernel->run(packed, gx, bx); });
  return 0;
}

int cuMemAlloc_v2(uint64_t* found, size_t size) {
  WANTS_CONTEXT;
  MAY_FAIL(cuMemAlloc_v2);
  if (!size) return 1;
  int file = memfd_create("emulated_cuda", 0);
  if (file < 0 || ftruncate(file, size)) return 2;
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (memory == MAP_FAILED) return 2;
  memset(memory, 0xa5, size);  // as a device's, it holds what it held
  std::lock_guard<std::mutex> held(state_lock);
  *found = (uint64_t)memory;
  memories[*found] = {file, size, true};
  return 0;
}
static int release(uint64_t memory, bool own) {
  std::lock_guard<std::mutex> held(state_lock);
  auto found = memories.find(memory);
  if (found == memories.end() || found->second.own != own) return 1;
  munmap((void*)memory, found->second.size);
  close(found->second.file);
  memories.erase(found);
  return 0;
}
int cuMemFree_v2(uint64_t memory) {
  if (int number = cuCtxSynchronize()) return number;
  return release(memory, true);
}
int cuMemsetD8_v2(uint64_t memory, unsigned char value, size_t size) {
  WANTS_CONTEXT;
  memset((void*)memory, value, size);
  return 0;
}
int cuMemcpyHtoD_v2(uint64_t to, const void* from, size_t size) {
  WANTS_CONTEXT;
  memcpy((void*)to, from, size);
  return 0;
}
int cuMemcpyDtoH_v2(void* to, uint64_t from, size_t size) {
  WANTS_CONTEXT;
  stream_of(nullptr)->wait();
  memcpy(to, (void*)from, size);
  return 0;
}

struct Handle { unsigned char bytes[64]; };
int cuIpcGetMemHandle(Handle* handle, uint64_t memory) {
  MAY_FAIL(cuIpcGetMemHandle);
  std::lock_guard<std::mutex> held(state_lock);
  auto found = memories.find(memory);
  if (found == memories.end() || !found->second.own) return 1;
  memset(handle, 0, sizeof *handle);
  snprintf((char*)handle->bytes, sizeof *handle, "/proc/%d/fd/%d", getpid(), found->second.file);
  return 0;
}
int cuIpcOpenMemHandle_v2(uint64_t* found, Handle handle, unsigned flags) {
  WANTS_CONTEXT;
  MAY_FAIL(cuIpcOpenMemHandle_v2);
  std::string name((char*)handle.bytes);
  if (flags != 1) return 1;
  if (name.rfind("/proc/" + std::to_string(getpid()) + "/", 0) == 0) return 201;  // as CUDA does
  int file = open(name.c_str(), O_RDWR);
  struct stat what;
  if (file < 0 || fstat(file, &what)) return 400;
  void* memory = mmap(nullptr, what.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (memory == MAP_FAILED) return 2;
  std::lock_guard<std::mutex> held(state_lock);
  *found = (uint64_t)memory;
  memories[*found] = {file, (size_t)what.st_size, false};
  return 0;
}
int cuIpcCloseMemHandle(uint64_t memory) { return release(memory, false); }
int cuMemHostAlloc(void** found, size_t size, unsigned flags) {
  WANTS_CONTEXT;
  MAY_FAIL(cuMemHostAlloc);
  if (flags != 3) return 1;
  *found = aligned_alloc(4096, (size + 4095) / 4096 * 4096);
  return *found ? 0 : 2;
}
int cuMemHostGetDevicePointer_v2(uint64_t* found, void* host, unsigned flags) {
  *found = (uint64_t)host;
  return flags ? 1 : 0;
}
}
