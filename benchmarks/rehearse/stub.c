/* A libcuda that launches nothing: what Triton's driver and launchers call, for one sm_90 GPU.

   Launches are checked as the driver checks them, and counted over all processes in the file of REHEARSE_LAUNCHES. */
#include "cuda.h"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SHARED_PER_SM = 233472, SHARED_PER_BLOCK = 232448, THREADS_PER_SM = 2048, THREADS_PER_BLOCK = 1024 };

static int number(const char *name, int otherwise) {
  const char *value = getenv(name);
  return value ? atoi(value) : otherwise;
}

static int multiprocessors(void) { return number("REHEARSE_MULTIPROCESSORS", 132); }

static void count(void) {
  static long *shared = NULL;
  if (!shared) {
    const char *path = getenv("REHEARSE_LAUNCHES");
    int file = path ? open(path, O_RDWR) : -1;
    if (file >= 0) {
      void *map = mmap(NULL, sizeof(long), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
      if (map != MAP_FAILED) shared = map;
      close(file);
    }
    if (!shared) shared = malloc(sizeof(long));
  }
  __atomic_fetch_add(shared, 1, __ATOMIC_RELAXED);
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *c, CUfunction f, void **arguments, void **extra) {
  unsigned threads = c->blockDimX * c->blockDimY * c->blockDimZ;
  if (!f || !arguments) return CUDA_ERROR_INVALID_HANDLE;
  if (!c->gridDimX || !c->gridDimY || !c->gridDimZ || c->gridDimX > 2147483647u || c->gridDimY > 65535 ||
      c->gridDimZ > 65535 || !threads || threads > THREADS_PER_BLOCK || c->sharedMemBytes > SHARED_PER_BLOCK)
    return CUDA_ERROR_INVALID_VALUE;
  for (unsigned i = 0; i < c->numAttrs; i++) {
    if (c->attrs[i].id != CU_LAUNCH_ATTRIBUTE_COOPERATIVE || !c->attrs[i].value.cooperative) continue;
    unsigned per_sm = THREADS_PER_SM / threads, by_shared = SHARED_PER_SM / (c->sharedMemBytes + 1024);
    if (by_shared < per_sm) per_sm = by_shared;
    if (c->gridDimX * c->gridDimY * c->gridDimZ > per_sm * multiprocessors())
      return CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE;
  }
  count();
  return CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult c, const char **s) {
  *s = c == CUDA_ERROR_INVALID_VALUE ? "invalid argument"
       : c == CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE ? "too many blocks in cooperative launch"
                                                      : "error of the rehearsal's libcuda";
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
  switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = SHARED_PER_BLOCK; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: *value = SHARED_PER_SM; break;
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK: *value = 65536; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = multiprocessors(); break;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = THREADS_PER_BLOCK; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = 9; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = 0; break;
    default: *value = 1;
  }
  return CUDA_SUCCESS;
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction f) {
  *value = attribute == CU_FUNC_ATTRIBUTE_NUM_REGS ? 100
           : attribute == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? THREADS_PER_BLOCK : 0;
  return CUDA_SUCCESS;
}

CUresult cuPointerGetAttribute(void *data, CUpointer_attribute attribute, CUdeviceptr p) {
  *(CUdeviceptr *)data = p;
  return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction *f, CUmodule m, const char *name) {
  static unsigned long made = 0;
  *f = (CUfunction)(__atomic_add_fetch(&made, 1, __ATOMIC_RELAXED));
  return CUDA_SUCCESS;
}

#define ONE_CONTEXT ((CUcontext)0x10)
CUresult cuInit(unsigned flags) { return CUDA_SUCCESS; }
CUresult cuDriverGetVersion(int *version) { *version = 13000; return CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice *d, int i) { *d = i; return CUDA_SUCCESS; }
CUresult cuDeviceGetCount(int *n) { *n = 1; return CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxRetain(CUcontext *c, CUdevice d) { *c = ONE_CONTEXT; return CUDA_SUCCESS; }
CUresult cuCtxGetCurrent(CUcontext *c) { *c = ONE_CONTEXT; return CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext c) { return CUDA_SUCCESS; }
CUresult cuCtxGetDevice(CUdevice *d) { *d = 0; return CUDA_SUCCESS; }
CUresult cuCtxGetLimit(size_t *size, CUlimit l) { *size = 1 << 20; return CUDA_SUCCESS; }
CUresult cuCtxSetLimit(CUlimit l, size_t size) { return CUDA_SUCCESS; }
CUresult cuModuleLoadData(CUmodule *m, const void *image) { *m = (CUmodule)0x20; return CUDA_SUCCESS; }
CUresult cuModuleUnload(CUmodule m) { return CUDA_SUCCESS; }
CUresult cuFuncSetAttribute(CUfunction f, CUfunction_attribute a, int value) {
  return a == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES && value > SHARED_PER_BLOCK ? CUDA_ERROR_INVALID_VALUE
                                                                                          : CUDA_SUCCESS;
}
CUresult cuFuncSetCacheConfig(CUfunction f, CUfunc_cache c) { return CUDA_SUCCESS; }
CUresult cuStreamIsCapturing(CUstream s, CUstreamCaptureStatus *status) { *status = CU_STREAM_CAPTURE_STATUS_NONE; return CUDA_SUCCESS; }
CUresult cuOccupancyMaxActiveClusters(int *n, CUfunction f, const CUlaunchConfig *c) { *n = 8; return CUDA_SUCCESS; }
CUresult cuTensorMapEncodeTiled(CUtensorMap *t, CUtensorMapDataType type, cuuint32_t rank, void *address,
                                const cuuint64_t *sizes, const cuuint64_t *strides, const cuuint32_t *box,
                                const cuuint32_t *steps, CUtensorMapInterleave i, CUtensorMapSwizzle s,
                                CUtensorMapL2promotion l, CUtensorMapFloatOOBfill fill) {
  return CUDA_SUCCESS;
}
