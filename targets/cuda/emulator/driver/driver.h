/* What the parts of the driver share.
 *
 * One library does what libcuda and libcudart promise to TVM's CUDA runtime. It starts without a
 * device; fewbits_install gives it one, whose kernels the interpreter in core/ runs. Everything
 * happens at once: a call that CUDA would queue has been done when it returns, so streams and
 * events only keep the rules. Numbers and layouts are those of CUDA 13's headers.
 */
#ifndef FEWBITS_DRIVER_H
#define FEWBITS_DRIVER_H

#include <stddef.h>
#include <stdint.h>

#include "../core/emulator.h"
#include "../tensor/tensor.h"

#define EXPORT __attribute__((visibility("default")))

/* Errors: cudaError_t and CUresult have the same numbers. */
enum {
    CUDA_OK = 0,
    CUDA_INVALID_VALUE = 1,
    CUDA_OUT_OF_MEMORY = 2,
    CUDA_NO_DEVICE = 100,
    CUDA_INVALID_DEVICE = 101,
    CUDA_INVALID_IMAGE = 200,
    CUDA_NO_BINARY_FOR_GPU = 209,
    CUDA_INVALID_PTX = 218,
    CUDA_INVALID_HANDLE = 400,
    CUDA_NOT_FOUND = 500,
    CUDA_ILLEGAL_ADDRESS = 700,
    CUDA_LAUNCH_TIMEOUT = 702,
    CUDA_ILLEGAL_INSTRUCTION = 715,
    CUDA_MISALIGNED_ADDRESS = 716,
    CUDA_LAUNCH_FAILED = 719,
    CUDA_NOT_SUPPORTED = 801,
    CUDA_CAPTURE_UNSUPPORTED = 900,
    CUDA_CAPTURE_INVALIDATED = 901,
    CUDA_CAPTURE_MERGE = 902,
    CUDA_CAPTURE_UNMATCHED = 903,
    CUDA_CAPTURE_UNJOINED = 904,
    CUDA_CAPTURE_IMPLICIT = 906,
    CUDA_INVALID_CLUSTER_SIZE = 912,
    CUDA_UNKNOWN = 999
};

#define TEXT_BYTES 4096

/* The interpreter's functions, found by name when it is installed. */
#define CORE_FUNCTIONS(X)                                                                        \
    X(fb_gpu_limits_for) X(fb_gpu_create) X(fb_gpu_set_option) X(fb_gpu_register)                \
    X(fb_gpu_unregister) X(fb_program_load) X(fb_program_unload) X(fb_program_kernel)            \
    X(fb_kernel_get_attributes) X(fb_launch) X(fb_tensor_map_encode)

typedef struct {
#define X(name) __typeof__(&name) name;
    CORE_FUNCTIONS(X)
#undef X
} core_functions;

/* Makes the interpreter's form of a program out of a fat binary or PTX; returns a CUDA error. The
 * program belongs to the callee and lives until the thread's next call. */
typedef int (*translate_function)(const uint8_t *image, uint64_t size, int32_t capability,
                                  int32_t specific, const uint8_t **program,
                                  uint64_t *program_size, char *error, uint64_t error_size);

typedef struct {
    fb_gpu *gpu;
    fb_limits limits;
    int32_t capability; /* 90 */
    int32_t specific;   /* whether it runs code for sm_90a */
} device;

/* Sums over launches. */
typedef struct {
    uint64_t launches;
    fb_launch_statistics executed;
} statistics;

extern core_functions core;
extern translate_function translate;
extern device *current; /* NULL: there is no device */
extern statistics executed;

/* errors.c. Every entry point is: enter, work, leave. */
int enter(void);           /* locks; an error where no call can work: no device, or a fault */
void enter_always(void);   /* locks, for calls that work even then */
int leave(int error);      /* unlocks; remembers and returns the error */
int fail(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));
int fault(int error, const char *text); /* an error that stays until fewbits_reset */

/* device.c */
int each_device_register(uint64_t address, void *host, uint64_t size);
void each_device_unregister(uint64_t address);

/* memory.c */
typedef struct allocation {
    struct allocation *next;
    uint64_t address; /* the device's */
    uint64_t size;
    void *host;
} allocation;

extern uint64_t memory_total;
allocation *allocations(void);
int copy_now(void *to, const void *from, size_t size, int kind);

/* modules.c */
typedef struct module module;
typedef struct function function;
typedef struct {
    function *function;
    fb_launch_config config; /* of a recorded launch: param_buffer, which is its own */
} launch;

int launch_now(const launch *what);
void module_keep(function *of);
void module_release(function *of);

/* streams.c, graphs.c */
typedef struct graph graph;
typedef struct stream stream;

stream *find_stream(void *handle); /* NULL for none of that kind */
graph *stream_graph(void *handle, int *error); /* into which it is captured, or NULL */
int capture_forbids(const char *call); /* calls that no capture allows; invalidates captures */
void end_captures(void);   /* as if they had never begun */
graph *graph_create(void);
void graph_release(graph *of);
int graph_is_valid(const graph *of);
void graph_invalidate(graph *of);
int graph_record_copy(graph *into, void *to, const void *from, size_t size, int kind);
int graph_record_launch(graph *into, const launch *what, const fb_kernel_attributes *attributes);

#endif
