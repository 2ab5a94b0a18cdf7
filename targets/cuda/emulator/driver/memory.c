/* Memory of the device, and copies.
 *
 * Device addresses are no addresses of the host: they lie above everything a process can map, so
 * host code that follows one is stopped by the machine, as with a GPU. Between two allocations is a
 * gap, and addresses are not used again, so whoever leaves an allocation or uses a freed one is
 * found. New memory is full of ones: NaN in every float type.
 */
#include "driver.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_ADDRESS (UINT64_C(1) << 52)
#define LAST_ADDRESS (UINT64_C(1) << 55)
#define ALIGNMENT UINT64_C(65536)

uint64_t memory_total;
static uint64_t memory_used;
static uint64_t next_address = FIRST_ADDRESS;
static allocation *first;

allocation *allocations(void) { return first; }

static int is_device_address(const void *pointer) { return (uint64_t)pointer >= FIRST_ADDRESS; }

static int allocate(void **pointer, uint64_t size) {
    *pointer = NULL;
    if (!size) return CUDA_OK;
    if (size > memory_total - memory_used || memory_used > memory_total)
        return fail(CUDA_OUT_OF_MEMORY,
                    "%llu bytes do not fit: %llu of the emulated GPU's %llu are in use",
                    (unsigned long long)size, (unsigned long long)memory_used,
                    (unsigned long long)memory_total);
    /* Room for one whole unit behind it is the gap. */
    uint64_t room = (size / ALIGNMENT + 2) * ALIGNMENT;
    if (room > LAST_ADDRESS - next_address) return fail(CUDA_OUT_OF_MEMORY, "no address is left");
    allocation *made = malloc(sizeof *made);
    void *host = aligned_alloc(ALIGNMENT, (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    if (!made || !host) {
        free(made);
        free(host);
        return fail(CUDA_OUT_OF_MEMORY, "the host's memory does not suffice for %llu bytes",
                    (unsigned long long)size);
    }
    memset(host, 0xFF, size);
    *made = (allocation){first, next_address, size, host};
    int error = each_device_register(made->address, host, size);
    if (error) {
        free(host);
        free(made);
        return error;
    }
    next_address += room;
    memory_used += size;
    first = made;
    *pointer = (void *)made->address;
    return CUDA_OK;
}

EXPORT int cudaMalloc(void **pointer, size_t size) {
    int error = enter();
    if (!error) error = capture_forbids("cudaMalloc");
    return leave(error ? error : allocate(pointer, size));
}

/* Works after a fault, as TVM frees while an exception is under way. */
EXPORT int cudaFree(void *pointer) {
    enter_always();
    if (!pointer) return leave(CUDA_OK);
    if (current) capture_forbids("cudaFree");
    for (allocation **place = &first; *place; place = &(*place)->next)
        if ((*place)->address == (uint64_t)pointer) {
            allocation *gone = *place;
            *place = gone->next;
            each_device_unregister(gone->address);
            memory_used -= gone->size;
            free(gone->host);
            free(gone);
            return leave(CUDA_OK);
        }
    return leave(fail(CUDA_INVALID_VALUE, "no allocation begins at %p", pointer));
}

EXPORT int cudaMallocHost(void **pointer, size_t size) {
    int error = enter();
    if (error) return leave(error);
    *pointer = size ? malloc(size) : NULL;
    if (size && !*pointer) error = fail(CUDA_OUT_OF_MEMORY, "no host memory");
    return leave(error);
}

EXPORT int cudaFreeHost(void *pointer) {
    free(pointer);
    return CUDA_OK;
}

EXPORT int cudaMemGetInfo(size_t *unused, size_t *total) {
    int error = enter();
    if (!error) {
        *unused = memory_total > memory_used ? memory_total - memory_used : 0;
        *total = memory_total;
    }
    return leave(error);
}

/* The host's address of `size` bytes, which must lie inside one allocation. */
static unsigned char *resolve(const void *pointer, uint64_t size) {
    uint64_t address = (uint64_t)pointer;
    for (allocation *a = first; a; a = a->next)
        if (address >= a->address && address - a->address <= a->size &&
            size <= a->size - (address - a->address))
            return (unsigned char *)a->host + (address - a->address);
    return NULL;
}

int copy_now(void *to, const void *from, size_t size, int kind) {
    enum { HOST_TO_HOST, HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE, BY_ADDRESS };
    if (!size) return CUDA_OK;
    int device_to = is_device_address(to), device_from = is_device_address(from);
    int wanted_to = kind == HOST_TO_DEVICE || kind == DEVICE_TO_DEVICE;
    int wanted_from = kind == DEVICE_TO_HOST || kind == DEVICE_TO_DEVICE;
    if (kind < 0 || kind > BY_ADDRESS ||
        (kind != BY_ADDRESS && (device_to != wanted_to || device_from != wanted_from)))
        return fail(CUDA_INVALID_VALUE, "a copy from %s %p to %s %p, said to be of kind %d",
                    device_from ? "device" : "host", from, device_to ? "device" : "host", to,
                    kind);
    void *target = device_to ? resolve(to, size) : to;
    const void *source = device_from ? resolve(from, size) : from;
    if (!target || !source)
        return fail(CUDA_INVALID_VALUE, "a copy of %zu bytes at %p leaves its allocation", size,
                    target ? from : to);
    memmove(target, source, size);
    return CUDA_OK;
}

EXPORT int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *on) {
    int error = enter();
    graph *into = error ? NULL : stream_graph(on, &error);
    if (!error)
        error = into ? graph_record_copy(into, to, from, size, kind)
                     : copy_now(to, from, size, kind);
    return leave(error);
}

EXPORT int cudaMemcpyPeerAsync(void *to, int to_device, const void *from, int from_device,
                               size_t size, void *on) {
    if (to_device || from_device) {
        enter_always();
        return leave(fail(CUDA_INVALID_DEVICE, "there is device 0 only"));
    }
    return cudaMemcpyAsync(to, from, size, 3, on);
}
