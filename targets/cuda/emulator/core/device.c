/* The device: its limits, options and memory. */
#include <stdlib.h>

#include "machine.h"

void fb_gpu_limits_for(int32_t capability, fb_limits *limits) {
    bool hopper = capability >= 90, ampere = capability == 80;
    *limits = (fb_limits){
        .major = capability / 10,
        .minor = capability % 10,
        .multiprocessors = hopper ? 132 : ampere ? 108 : 142,
        .max_threads_per_block = 1024,
        .max_shared_per_block = hopper ? 232448 : ampere ? 166912 : 101376,
        .max_shared_default = 49152,
        .max_cluster = hopper ? 8 : 1,
    };
}

fb_gpu *fb_gpu_create(const fb_limits *limits) {
    fb_gpu *gpu = calloc(1, sizeof *gpu);
    if (!gpu) return NULL;
    gpu->limits = *limits;
    gpu->options[FB_CHECK_SHARED_INIT] = 1;
    gpu->options[FB_CHECK_ASYNC] = 1;
    gpu->options[FB_ASYNC_DELAY] = 3;
    return gpu;
}

void fb_gpu_destroy(fb_gpu *gpu) {
    if (!gpu) return;
    for (size_t i = 0; i < gpu->count; ++i) free(gpu->allocations[i].label);
    free(gpu->allocations);
    free(gpu);
}

void fb_gpu_set_option(fb_gpu *gpu, fb_option option, int64_t value) {
    if ((size_t)option < sizeof gpu->options / sizeof *gpu->options) gpu->options[option] = value;
}

/* The first allocation that ends after an address. */
static size_t lower(const fb_gpu *gpu, uint64_t address) {
    size_t low = 0, high = gpu->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const fb_allocation *a = &gpu->allocations[middle];
        if (a->start + a->size <= address) low = middle + 1;
        else high = middle;
    }
    return low;
}

fb_allocation *fb_find(const fb_gpu *gpu, uint64_t address) {
    size_t i = lower(gpu, address);
    if (i == gpu->count || gpu->allocations[i].start > address) return NULL;
    return &gpu->allocations[i];
}

fb_status fb_gpu_register(fb_gpu *gpu, uint64_t address, void *host, uint64_t size,
                          const char *label) {
    if (!size || address >= FB_ADDRESS_END || size > FB_ADDRESS_END - address) return FB_MISUSE;
    size_t at = lower(gpu, address);
    if (at < gpu->count && gpu->allocations[at].start < address + size) return FB_MISUSE;
    if (gpu->count == gpu->capacity) {
        size_t capacity = gpu->capacity ? 2 * gpu->capacity : 64;
        void *grown = realloc(gpu->allocations, capacity * sizeof *gpu->allocations);
        if (!grown) return FB_NO_MEMORY;
        gpu->allocations = grown;
        gpu->capacity = capacity;
    }
    char *copy = NULL;
    if (label) {
        size_t length = strlen(label) + 1;
        if (!(copy = malloc(length))) return FB_NO_MEMORY;
        memcpy(copy, label, length);
    }
    memmove(gpu->allocations + at + 1, gpu->allocations + at,
            (gpu->count - at) * sizeof *gpu->allocations);
    gpu->allocations[at] = (fb_allocation){address, size, host, copy};
    ++gpu->count;
    return FB_OK;
}

fb_status fb_gpu_unregister(fb_gpu *gpu, uint64_t address) {
    fb_allocation *found = fb_find(gpu, address);
    if (!found || found->start != address) return FB_MISUSE;
    free(found->label);
    size_t at = (size_t)(found - gpu->allocations);
    --gpu->count;
    memmove(found, found + 1, (gpu->count - at) * sizeof *found);
    return FB_OK;
}

void *fb_gpu_host_pointer(const fb_gpu *gpu, uint64_t address, uint64_t size) {
    const fb_allocation *a = fb_find(gpu, address);
    if (!a || size > a->size - (address - a->start)) return NULL;
    return a->host + (address - a->start);
}

int32_t fb_gpu_allocation(const fb_gpu *gpu, uint64_t address, uint64_t *start, uint64_t *size) {
    const fb_allocation *a = fb_find(gpu, address);
    if (!a) return 0;
    *start = a->start;
    *size = a->size;
    return 1;
}
