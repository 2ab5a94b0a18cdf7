/* Errors: their names, the last one, and those that stay.
 *
 * CUDA tells numbers; here the interpreter's own words belong to them. Whoever asks for the name or
 * description of the number that a call has just returned gets the words as well, so they reach
 * whatever message TVM builds.
 */
#include "driver.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    int error;
    char text[TEXT_BYTES];
} told;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static told sticky;              /* of the device */
static _Thread_local told last;  /* of the thread's last failing call */
static _Thread_local int last_error;
static _Thread_local char answer[2 * TEXT_BYTES];

static const struct {
    int error;
    const char *driver, *runtime, *meaning;
} NAMES[] = {
    {CUDA_OK, "CUDA_SUCCESS", "cudaSuccess", "no error"},
    {CUDA_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "cudaErrorInvalidValue", "invalid argument"},
    {CUDA_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "cudaErrorMemoryAllocation",
     "out of memory"},
    {CUDA_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "cudaErrorNoDevice", "there is no CUDA device"},
    {CUDA_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "cudaErrorInvalidDevice",
     "no such device"},
    {CUDA_INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "cudaErrorInvalidKernelImage",
     "the module's code is damaged"},
    {CUDA_NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU", "cudaErrorNoKernelImageForDevice",
     "the module has no code for this device"},
    {CUDA_INVALID_PTX, "CUDA_ERROR_INVALID_PTX", "cudaErrorInvalidPtx", "invalid PTX"},
    {CUDA_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "cudaErrorInvalidResourceHandle",
     "invalid handle"},
    {CUDA_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "cudaErrorSymbolNotFound", "nothing of that name"},
    {CUDA_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "cudaErrorIllegalAddress",
     "illegal memory access"},
    {CUDA_LAUNCH_TIMEOUT, "CUDA_ERROR_LAUNCH_TIMEOUT", "cudaErrorLaunchTimeout",
     "the kernel does not end"},
    {CUDA_ILLEGAL_INSTRUCTION, "CUDA_ERROR_ILLEGAL_INSTRUCTION", "cudaErrorIllegalInstruction",
     "illegal instruction"},
    {CUDA_MISALIGNED_ADDRESS, "CUDA_ERROR_MISALIGNED_ADDRESS", "cudaErrorMisalignedAddress",
     "misaligned address"},
    {CUDA_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "cudaErrorLaunchFailure",
     "the kernel failed"},
    {CUDA_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "cudaErrorNotSupported", "not supported"},
    {CUDA_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "cudaErrorStreamCaptureUnsupported", "not permitted while a stream is captured"},
    {CUDA_CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "cudaErrorStreamCaptureInvalidated", "an earlier error has ended the capture"},
    {CUDA_CAPTURE_MERGE, "CUDA_ERROR_STREAM_CAPTURE_MERGE", "cudaErrorStreamCaptureMerge",
     "two captures would become one"},
    {CUDA_CAPTURE_UNMATCHED, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED",
     "cudaErrorStreamCaptureUnmatched", "the capture did not begin in this stream"},
    {CUDA_CAPTURE_UNJOINED, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED",
     "cudaErrorStreamCaptureUnjoined", "captured work was not joined to the capture's stream"},
    {CUDA_CAPTURE_IMPLICIT, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT",
     "cudaErrorStreamCaptureImplicit", "the default stream would wait for a captured one"},
    {CUDA_INVALID_CLUSTER_SIZE, "CUDA_ERROR_INVALID_CLUSTER_SIZE", "cudaErrorInvalidClusterSize",
     "clusters of this size are not allowed"},
    {CUDA_UNKNOWN, "CUDA_ERROR_UNKNOWN", "cudaErrorUnknown", "unknown error"},
};

void enter_always(void) { pthread_mutex_lock(&lock); }

int enter(void) {
    enter_always();
    if (!current) return fail(CUDA_NO_DEVICE, "%s", "");
    if (sticky.error) return fail(sticky.error, "%s", sticky.text);
    return CUDA_OK;
}

int leave(int error) {
    if (error) last_error = error;
    pthread_mutex_unlock(&lock);
    return error;
}

int fail(int error, const char *format, ...) {
    va_list values;
    va_start(values, format);
    last.error = error;
    vsnprintf(last.text, sizeof last.text, format, values);
    va_end(values);
    return error;
}

int fault(int error, const char *text) {
    sticky.error = error;
    snprintf(sticky.text, sizeof sticky.text, "%s", text);
    return fail(error, "%s", text);
}

static size_t place_of(int error) {
    size_t count = sizeof NAMES / sizeof *NAMES;
    for (size_t i = 0; i < count; ++i)
        if (NAMES[i].error == error) return i;
    return count - 1;
}

static const char *with_text(int error, const char *name) {
    enter_always();
    const char *text = last.error == error && *last.text ? last.text
                       : sticky.error == error           ? sticky.text
                                                         : "";
    snprintf(answer, sizeof answer, "%s%s%s", name, *text ? ": " : "", text);
    pthread_mutex_unlock(&lock);
    return answer;
}

EXPORT int cuGetErrorName(int error, const char **name) {
    *name = with_text(error, NAMES[place_of(error)].driver);
    return CUDA_OK;
}

EXPORT int cuGetErrorString(int error, const char **text) {
    *text = with_text(error, NAMES[place_of(error)].meaning);
    return CUDA_OK;
}

EXPORT const char *cudaGetErrorName(int error) { return NAMES[place_of(error)].runtime; }

EXPORT const char *cudaGetErrorString(int error) {
    return with_text(error, NAMES[place_of(error)].meaning);
}

EXPORT int cudaPeekAtLastError(void) { return sticky.error ? sticky.error : last_error; }

EXPORT int cudaGetLastError(void) {
    int error = cudaPeekAtLastError();
    last_error = CUDA_OK;
    return error;
}

/* The device works again after a fault, and nothing is captured; memory is as the kernel left it. */
EXPORT void fewbits_reset(void) {
    enter_always();
    end_captures();
    memset(&sticky, 0, sizeof sticky);
    memset(&last, 0, sizeof last);
    memset(&executed, 0, sizeof executed);
    last_error = CUDA_OK;
    pthread_mutex_unlock(&lock);
}

/* The fault's number, 0 for none; its words go to `text`. */
EXPORT int fewbits_fault(char *text, size_t size) {
    enter_always();
    int error = sticky.error;
    if (size) snprintf(text, size, "%s", error ? sticky.text : "");
    pthread_mutex_unlock(&lock);
    return error;
}
