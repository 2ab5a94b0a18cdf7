/* Which device there is: none, or one that the interpreter plays. */
#include "driver.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#define MOST_DEVICES 16
#define OPTIONS 8

core_functions core;
translate_function translate;
device *current;
statistics executed;

/* One for each architecture that was ever installed: modules belong to theirs. All of them share
 * the memory. */
static device devices[MOST_DEVICES];
static int device_count;
static struct {
    int set;
    int64_t value;
} options[OPTIONS];

static int load_core(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) return fail(CUDA_UNKNOWN, "%s", dlerror());
#define X(name)                                                                                  \
    if (!(core.name = (__typeof__(&name))dlsym(library, #name)))                                 \
        return fail(CUDA_UNKNOWN, "the interpreter has no %s", #name);
    CORE_FUNCTIONS(X)
#undef X
    return CUDA_OK;
}

static int choose(int32_t capability, int32_t specific) {
    for (int i = 0; i < device_count; ++i)
        if (devices[i].capability == capability && devices[i].specific == specific) {
            current = &devices[i];
            return CUDA_OK;
        }
    if (device_count == MOST_DEVICES) return fail(CUDA_UNKNOWN, "too many devices");
    device *made = &devices[device_count];
    made->capability = capability;
    made->specific = specific;
    core.fb_gpu_limits_for(capability, &made->limits);
    /* What H100 allows functions that ask for it; modules.c has the rule. */
    if (made->limits.max_cluster > 1) made->limits.max_cluster = 16;
    made->gpu = core.fb_gpu_create(&made->limits);
    if (!made->gpu) return fail(CUDA_OUT_OF_MEMORY, "no memory for a device");
    for (int i = 0; i < OPTIONS; ++i)
        if (options[i].set) core.fb_gpu_set_option(made->gpu, (fb_option)i, options[i].value);
    ++device_count;
    current = made;
    for (allocation *a = allocations(); a; a = a->next)
        core.fb_gpu_register(made->gpu, a->address, a->host, a->size, NULL);
    return CUDA_OK;
}

/* Gives the process a device. Later calls change what it is for modules that are loaded then. */
EXPORT int fewbits_install(const char *core_library, int32_t capability, int32_t specific,
                           uint64_t memory, translate_function translator) {
    enter_always();
    int error = core.fb_launch ? CUDA_OK : load_core(core_library);
    if (!error) {
        translate = translator;
        memory_total = memory;
        error = choose(capability, specific);
    }
    return leave(error);
}

/* fb_option of every device, those to come included. */
EXPORT int fewbits_set_option(int32_t option, int64_t value) {
    if (option < 0 || option >= OPTIONS) return CUDA_INVALID_VALUE;
    enter_always();
    options[option].set = 1;
    options[option].value = value;
    for (int i = 0; i < device_count; ++i)
        core.fb_gpu_set_option(devices[i].gpu, (fb_option)option, value);
    return leave(CUDA_OK);
}

EXPORT void fewbits_statistics(statistics *into) {
    enter_always();
    *into = executed;
    leave(CUDA_OK);
}

int each_device_register(uint64_t address, void *host, uint64_t size) {
    for (int i = 0; i < device_count; ++i)
        if (core.fb_gpu_register(devices[i].gpu, address, host, size, NULL) != FB_OK) {
            while (i--) core.fb_gpu_unregister(devices[i].gpu, address);
            return fail(CUDA_OUT_OF_MEMORY, "no address space");
        }
    return CUDA_OK;
}

void each_device_unregister(uint64_t address) {
    for (int i = 0; i < device_count; ++i) core.fb_gpu_unregister(devices[i].gpu, address);
}

EXPORT int cudaGetDeviceCount(int *count) {
    enter_always();
    *count = current != NULL;
    return leave(current ? CUDA_OK : fail(CUDA_NO_DEVICE, "%s", ""));
}

EXPORT int cudaGetDevice(int *number) {
    enter_always();
    *number = 0;
    return leave(current ? CUDA_OK : fail(CUDA_NO_DEVICE, "%s", ""));
}

/* Works after a fault: TVM calls it before it frees, where an error would end the process. */
EXPORT int cudaSetDevice(int number) {
    enter_always();
    if (!current) return leave(fail(CUDA_NO_DEVICE, "%s", ""));
    return leave(number ? fail(CUDA_INVALID_DEVICE, "there is device 0 only") : CUDA_OK);
}

/* cudaDeviceAttr by number: what TVM and fewbits ask for. */
static int attribute(int number, int *value) {
    const fb_limits *limits = &current->limits;
    switch (number) {
        case 1: *value = limits->max_threads_per_block; break;
        case 2: case 3: *value = 1024; break;                   /* block, x and y */
        case 4: *value = 64; break;                             /* block, z */
        case 5: *value = INT32_MAX; break;                      /* grid, x */
        case 6: case 7: *value = 65535; break;                  /* grid, y and z */
        case 8: *value = (int)limits->max_shared_default; break;
        case 9: *value = 65536; break;                          /* constant memory */
        case 10: *value = 32; break;                            /* warp */
        case 12: case 82: *value = 65536; break;                /* registers */
        case 13: *value = 1000000; break;                       /* clock, kHz: means nothing */
        case 16: *value = limits->multiprocessors; break;
        case 38: *value = 50 << 20; break;                      /* L2 cache */
        case 39: *value = limits->minor ? 1536 : 2048; break;   /* threads of a multiprocessor */
        case 41: *value = 1; break;                             /* one address space */
        case 75: *value = limits->major; break;
        case 76: *value = limits->minor; break;
        case 81: *value = (int)limits->max_shared_per_block + 1024; break;
        case 95: *value = 0; break;                             /* cooperative launches */
        case 97: *value = (int)limits->max_shared_per_block; break;
        case 106: *value = 32; break;                           /* blocks of a multiprocessor */
        case 111: *value = 1024; break;                         /* shared memory of the system */
        case 120: *value = limits->max_cluster > 1; break;
        default: return fail(CUDA_INVALID_VALUE, "the emulated GPU has no attribute %d", number);
    }
    return CUDA_OK;
}

EXPORT int cudaDeviceGetAttribute(int *value, int number, int of) {
    enter_always();
    if (!current) return leave(fail(CUDA_NO_DEVICE, "%s", ""));
    if (of) return leave(fail(CUDA_INVALID_DEVICE, "there is device 0 only"));
    return leave(attribute(number, value));
}

EXPORT int cuDeviceGetName(char *name, int size, int of) {
    enter_always();
    if (!current) return leave(fail(CUDA_NO_DEVICE, "%s", ""));
    if (of || size < 1) return leave(fail(CUDA_INVALID_VALUE, "there is device 0 only"));
    snprintf(name, (size_t)size, "fewbits emulated GPU sm_%d%s", current->capability,
             current->specific ? "a" : "");
    return leave(CUDA_OK);
}

/* cudaDeviceProp of CUDA 13: 1008 bytes, of which these are filled in. */
EXPORT int cudaGetDeviceProperties(void *properties, int of) {
    static const struct {
        int offset, attribute;
    } INTEGERS[] = {{304, 12}, {308, 10}, {320, 1}, {324, 2},  {328, 3},  {332, 4},  {336, 5},
                    {340, 6},  {344, 7},  {360, 75}, {364, 76}, {384, 16}, {596, 38}};
    static const struct {
        int offset, attribute;
    } SIZES[] = {{296, 8}, {624, 81}, {672, 97}};
    unsigned char *into = properties;
    memset(into, 0, 1008);
    int error = cuDeviceGetName((char *)into, 256, of);
    if (error) return error;
    enter_always();
    memcpy(into + 288, &memory_total, 8);
    for (size_t i = 0; i < sizeof INTEGERS / sizeof *INTEGERS; ++i) {
        int value = 0;
        attribute(INTEGERS[i].attribute, &value);
        memcpy(into + INTEGERS[i].offset, &value, 4);
    }
    for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; ++i) {
        int value = 0;
        attribute(SIZES[i].attribute, &value);
        memcpy(into + SIZES[i].offset, &(uint64_t){(uint64_t)value}, 8);
    }
    return leave(CUDA_OK);
}
