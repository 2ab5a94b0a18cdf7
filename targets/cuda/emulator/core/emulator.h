/* The emulated GPU: runs programs translated from PTX and checks every access they make.
 *
 * One `fb_gpu` is one device. Its memory is the caller's: allocations are registered, and every
 * access of a kernel to global memory must lie wholly inside one of them. A device address may be
 * the host's own address or any other below FB_ADDRESS_END.
 *
 * Nothing here is thread-safe; a launch runs to its end before it returns.
 */
#ifndef FEWBITS_EMULATOR_H
#define FEWBITS_EMULATOR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fb_gpu fb_gpu;
typedef struct fb_program fb_program;
typedef struct fb_kernel fb_kernel;

/* Global addresses lie below; the windows of shared and local memory lie above. */
#define FB_ADDRESS_END (UINT64_C(1) << 56)

typedef enum {
    FB_OK = 0,
    FB_INVALID_IMAGE = 1,    /* the binary form is damaged, or of another version */
    FB_INVALID_LAUNCH = 2,   /* sizes that the kernel or the device does not allow */
    FB_ILLEGAL_ADDRESS = 3,  /* outside of every allocation, of shared memory, of local memory */
    FB_MISALIGNED = 4,
    FB_UNINITIALISED = 5,    /* shared memory or a register was read before it was written */
    FB_DEADLOCK = 6,         /* no warp can go on */
    FB_RACE = 7,             /* shared memory touched by two warps with no barrier in between */
    FB_TRAP = 8,             /* the kernel ended itself: trap, or a failed assertion */
    FB_UNSUPPORTED = 9,      /* an instruction or a form of one that the emulator does not know */
    FB_MISUSE = 10,          /* an instruction used against its rules; the text says which */
    FB_LIMIT = 11,           /* more instructions than the option FB_MAX_INSTRUCTIONS allows */
    FB_NO_MEMORY = 12
} fb_status;

/* What the device is, by the names that CUDA has for it. Fill in with fb_gpu_limits_for. */
typedef struct {
    int32_t major, minor;          /* compute capability */
    int32_t multiprocessors;
    int32_t max_threads_per_block;
    int64_t max_shared_per_block;  /* bytes, static and dynamic, after opting in */
    int64_t max_shared_default;    /* bytes without opting in */
    int32_t max_cluster;           /* blocks of a cluster */
} fb_limits;

/* 80, 86, 89, 90, ...: capability without the dot. */
void fb_gpu_limits_for(int32_t capability, fb_limits *limits);

fb_gpu *fb_gpu_create(const fb_limits *limits);
void fb_gpu_destroy(fb_gpu *gpu);

typedef enum {
    FB_CHECK_SHARED_INIT = 0,   /* reads of shared memory never written: 1 (default) or 0 */
    FB_CHECK_RACES = 1,         /* races in shared memory: 0 (default) or 1 */
    FB_CHECK_ASYNC = 2,         /* registers touched while a wgmma is in flight: 1 (default) */
    FB_ASYNC_DELAY = 3,         /* rounds of the scheduler until a bulk copy lands: 3 (default) */
    FB_MAX_INSTRUCTIONS = 4     /* warp instructions of one launch; 0 (default): no limit */
} fb_option;

void fb_gpu_set_option(fb_gpu *gpu, fb_option option, int64_t value);

/* Makes `size` bytes at `host` the device memory at `address`. The label (copied, may be NULL)
 * names it in errors. FB_MISUSE when it overlaps a live allocation. */
fb_status fb_gpu_register(fb_gpu *gpu, uint64_t address, void *host, uint64_t size,
                          const char *label);
/* FB_MISUSE when no allocation starts there. */
fb_status fb_gpu_unregister(fb_gpu *gpu, uint64_t address);
/* The host's pointer to `size` bytes of device memory, NULL unless one allocation has them all. */
void *fb_gpu_host_pointer(const fb_gpu *gpu, uint64_t address, uint64_t size);
/* The allocation that holds an address: 1 and its bounds, or 0. */
int32_t fb_gpu_allocation(const fb_gpu *gpu, uint64_t address, uint64_t *start, uint64_t *size);

/* Loads the binary form (program.py writes it); it is copied. Allocates and registers the module's
 * global and constant variables. `error` gets a text that ends in 0. */
fb_status fb_program_load(fb_gpu *gpu, const void *image, size_t image_size, fb_program **program,
                          char *error, size_t error_size);
void fb_program_unload(fb_program *program);

/* NULL when there is none of that name. */
const fb_kernel *fb_program_kernel(const fb_program *program, const char *name);
int32_t fb_program_kernel_count(const fb_program *program);
const fb_kernel *fb_program_kernel_at(const fb_program *program, int32_t index);
/* A variable of the module in .global or .const: 1, its device address and size; or 0. */
int32_t fb_program_global(const fb_program *program, const char *name, uint64_t *address,
                          uint64_t *size);

typedef struct {
    const char *name;
    int32_t param_count;
    const uint32_t *param_sizes;    /* bytes */
    const uint32_t *param_offsets;  /* bytes, in the parameter buffer */
    uint32_t param_bytes;           /* size of the parameter buffer */
    uint32_t static_shared_bytes;
    uint32_t local_bytes;           /* per thread */
    uint32_t max_threads;           /* .maxntid or .reqntid, else the device's limit */
    uint32_t required_block[3];     /* .reqntid, zeros when absent */
    uint32_t required_cluster[3];   /* .reqnctapercluster, zeros when absent */
    uint32_t registers;             /* .maxnreg, else an estimate from the program's text */
    int32_t ptx_version;            /* 90 for 9.0 */
    int32_t target;                 /* 90 for sm_90a */
} fb_kernel_attributes;

void fb_kernel_get_attributes(const fb_kernel *kernel, fb_kernel_attributes *attributes);

typedef struct {
    uint32_t grid[3], block[3];
    uint32_t cluster[3];            /* zeros: the kernel's own, or none */
    uint32_t dynamic_shared_bytes;
    void *const *params;            /* as in cuLaunchKernel: one pointer for each parameter */
    const void *param_buffer;       /* or, with params NULL, the whole buffer */
    size_t param_buffer_size;
} fb_launch_config;

typedef struct {
    uint64_t warp_instructions;     /* executed */
    uint64_t lane_instructions;     /* the same times the active lanes */
    uint64_t global_load_bytes, global_store_bytes;  /* asked for by threads */
    uint64_t tensor_instructions;   /* mma and wgmma, of a warp or a warpgroup */
} fb_launch_statistics;

/* Runs a kernel to its end. `statistics` may be NULL. */
fb_status fb_launch(const fb_kernel *kernel, const fb_launch_config *config,
                    fb_launch_statistics *statistics, char *error, size_t error_size);

#ifdef __cplusplus
}
#endif

#endif
