/* Runs a compiled library on .npy files, with TVM's C interface and nothing else.
 *
 *     run [--each] LIBRARY PREFIX INPUT.npy ...
 *
 * writes PREFIX0.npy, PREFIX1.npy ... With --each the first axis of every input counts samples and
 * the library is called once for each of them (libraries for a batch that may have any size take
 * the arrays as they are). README.md beside this file says how to build it.
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tvm/ffi/c_api.h>

#define MOST_TENSORS 64
#define MOST_AXES 16

typedef struct {
    DLDataType dtype;
    int axes;
    int64_t shape[MOST_AXES];
    size_t item, size; /* bytes of an element, and of all */
    char *data;
} Array;

static const struct {
    const char *numpy;
    DLDataType dtype;
} TYPES[] = {
    {"<f4", {kDLFloat, 32, 1}}, {"<f8", {kDLFloat, 64, 1}}, {"<f2", {kDLFloat, 16, 1}},
    {"|i1", {kDLInt, 8, 1}},    {"<i2", {kDLInt, 16, 1}},   {"<i4", {kDLInt, 32, 1}},
    {"<i8", {kDLInt, 64, 1}},   {"|u1", {kDLUInt, 8, 1}},   {"|b1", {kDLBool, 8, 1}},
};
static const size_t TYPE_COUNT = sizeof TYPES / sizeof TYPES[0];

static void fail(const char *what, const char *which) {
    fprintf(stderr, "run: %s: %s\n", what, which);
    exit(1);
}

/* -- TVM's functions, called by name -------------------------------------------------------- */

static void check(int status, const char *what) {
    TVMFFIObjectHandle error = NULL;
    const TVMFFIErrorCell *cell;
    if (status == 0) {
        return;
    }
    TVMFFIErrorMoveFromRaised(&error);
    /* What an object holds comes after its header. */
    cell = (const TVMFFIErrorCell *)((const char *)error + sizeof(TVMFFIObject));
    fprintf(stderr, "run: %s: %.*s\n", what, (int)cell->message.size, cell->message.data);
    exit(1);
}

static TVMFFIAny integer(int64_t value) {
    TVMFFIAny any;
    memset(&any, 0, sizeof any);
    any.type_index = kTVMFFIInt;
    any.v_int64 = value;
    return any;
}

static TVMFFIAny text(const char *value) {
    TVMFFIAny any;
    memset(&any, 0, sizeof any);
    any.type_index = kTVMFFIRawStr;
    any.v_c_str = value;
    return any;
}

static TVMFFIAny call(TVMFFIObjectHandle function, TVMFFIAny *arguments, int count,
                      const char *what) {
    TVMFFIAny result;
    memset(&result, 0, sizeof result);
    check(TVMFFIFunctionCall(function, arguments, count, &result), what);
    return result;
}

static TVMFFIAny call_global(const char *name, TVMFFIAny *arguments, int count) {
    TVMFFIByteArray bytes;
    TVMFFIObjectHandle function = NULL;
    bytes.data = name;
    bytes.size = strlen(name);
    check(TVMFFIFunctionGetGlobal(&bytes, &function), name);
    if (function == NULL) {
        fail("this runtime has no function", name);
    }
    return call(function, arguments, count, name);
}

static TVMFFIObjectHandle function_of(TVMFFIAny module, const char *name) {
    TVMFFIAny arguments[3];
    arguments[0] = module;
    arguments[1] = text(name);
    arguments[2] = integer(1);
    arguments[2].type_index = kTVMFFIBool; /* look in imported modules, too */
    TVMFFIAny found = call_global("ffi.ModuleGetFunction", arguments, 3);
    if (found.type_index == kTVMFFINone) {
        fail("the library has no function", name);
    }
    return found.v_obj;
}

/* The function `main` of a library's virtual machine. */
static TVMFFIObjectHandle load(const char *path) {
    TVMFFIAny argument = text(path);
    TVMFFIAny module = call_global("ffi.ModuleLoadFromFile", &argument, 1);
    TVMFFIAny machine =
        call(function_of(module, "vm_load_executable"), NULL, 0, "vm_load_executable");
    TVMFFIAny devices[3];
    devices[0] = integer(kDLCPU);
    devices[1] = integer(0);
    devices[2] = integer(2); /* memory is kept between calls */
    call(function_of(machine, "vm_initialization"), devices, 3, "vm_initialization");
    return function_of(machine, "main");
}

/* -- arrays --------------------------------------------------------------------------------- */

static Array read_npy(const char *path) {
    Array array;
    unsigned char start[12];
    char *header, *at;
    size_t length, read, index, elements = 1;
    FILE *file = fopen(path, "rb");
    memset(&array, 0, sizeof array);
    if (file == NULL || fread(start, 1, 10, file) != 10 || memcmp(start, "\x93NUMPY", 6) != 0) {
        fail("not an .npy file", path);
    }
    length = start[8] | (size_t)start[9] << 8;
    if (start[6] > 1) { /* version 2: four bytes of length */
        if (fread(start + 10, 1, 2, file) != 2) {
            fail("cut off", path);
        }
        length |= (size_t)start[10] << 16 | (size_t)start[11] << 24;
    }
    header = calloc(length + 1, 1);
    if (header == NULL || fread(header, 1, length, file) != length) {
        fail("cut off", path);
    }
    for (index = 0; index < TYPE_COUNT && strstr(header, TYPES[index].numpy) == NULL; index++) {
    }
    at = strstr(header, "'shape': (");
    if (index == TYPE_COUNT || at == NULL || strstr(header, "'fortran_order': True") != NULL) {
        fail("an array of another kind", path);
    }
    array.dtype = TYPES[index].dtype;
    array.item = array.dtype.bits / 8;
    for (at += strlen("'shape': ("); *at != ')'; at += strspn(at, ", ")) {
        if (array.axes == MOST_AXES || *at < '0' || *at > '9') {
            fail("an array of another kind", path);
        }
        array.shape[array.axes] = strtoll(at, &at, 10);
        elements *= (size_t)array.shape[array.axes++];
    }
    free(header);
    array.size = elements * array.item;
    /* Kernels want their memory aligned. */
    if (posix_memalign((void **)&array.data, 64, array.size + 64) != 0) {
        fail("out of memory", path);
    }
    read = fread(array.data, 1, array.size, file);
    fclose(file);
    if (read != array.size) {
        fail("cut off", path);
    }
    return array;
}

static void write_npy(const char *prefix, int number, const Array *array) {
    char path[4096], header[512];
    unsigned char start[10] = "\x93NUMPY\x01";
    size_t index, used;
    int axis;
    FILE *file;
    for (index = 0; index < TYPE_COUNT; index++) {
        const DLDataType *type = &TYPES[index].dtype;
        if (type->code == array->dtype.code && type->bits == array->dtype.bits) {
            break;
        }
    }
    if (index == TYPE_COUNT || snprintf(path, sizeof path, "%s%d.npy", prefix, number) < 0) {
        fail("cannot write", prefix);
    }
    used = (size_t)snprintf(header, sizeof header,
                            "{'descr': '%s', 'fortran_order': False, 'shape': (",
                            TYPES[index].numpy);
    for (axis = 0; axis < array->axes; axis++) {
        used += (size_t)snprintf(header + used, sizeof header - used, "%lld,",
                                 (long long)array->shape[axis]);
    }
    used += (size_t)snprintf(header + used, sizeof header - used, "), }");
    while ((used + 11) % 64 != 0) { /* data begins at a multiple of 64 */
        header[used++] = ' ';
    }
    header[used++] = '\n';
    start[8] = (unsigned char)used;
    start[9] = (unsigned char)(used >> 8);
    file = fopen(path, "wb");
    if (file == NULL || fwrite(start, 1, 10, file) != 10 ||
        fwrite(header, 1, used, file) != used ||
        fwrite(array->data, 1, array->size, file) != array->size || fclose(file) != 0) {
        fail("cannot write", path);
    }
    printf("%s\n", path);
}

static void release(DLManagedTensor *tensor) { free(tensor); }

/* A tensor that shares memory with part of an array. */
static TVMFFIAny tensor(Array *array, char *data, int first_axis) {
    TVMFFIAny any;
    DLManagedTensor *managed = calloc(1, sizeof *managed);
    memset(&any, 0, sizeof any);
    if (managed == NULL) {
        fail("out of memory", "tensor");
    }
    managed->dl_tensor.data = data;
    managed->dl_tensor.device.device_type = kDLCPU;
    managed->dl_tensor.ndim = array->axes - first_axis;
    managed->dl_tensor.dtype = array->dtype;
    managed->dl_tensor.shape = array->shape + first_axis;
    managed->deleter = release;
    any.type_index = kTVMFFITensor;
    check(TVMFFITensorFromDLPack(managed, 0, 0, (TVMFFIObjectHandle *)&any.v_obj), "tensor");
    return any;
}

/* Appends a result to an output; with `each` results get an axis in front that counts them. */
static void append(Array *output, TVMFFIAny result, int each) {
    const DLTensor *got = (const DLTensor *)((const char *)result.v_obj + sizeof(TVMFFIObject));
    size_t bytes = got->dtype.bits / 8u;
    int axis;
    if (got->ndim + each > MOST_AXES) {
        fail("too many axes", "output");
    }
    for (axis = 0; axis < got->ndim; axis++) {
        bytes *= (size_t)got->shape[axis];
        output->shape[axis + each] = got->shape[axis];
    }
    output->dtype = got->dtype;
    output->axes = got->ndim + each;
    if (each) {
        output->shape[0] += 1;
    }
    output->data = realloc(output->data, output->size + bytes + 1);
    if (output->data == NULL) {
        fail("out of memory", "output");
    }
    memcpy(output->data + output->size, (const char *)got->data + got->byte_offset, bytes);
    output->size += bytes;
}

int main(int argc, char **argv) {
    Array inputs[MOST_TENSORS], outputs[MOST_TENSORS];
    TVMFFIAny arguments[MOST_TENSORS], pair[2];
    TVMFFIObjectHandle function;
    int each = argc > 1 && strcmp(argv[1], "--each") == 0;
    int count, output_count = 1, index;
    int64_t sample, samples = 1;
    argv += each;
    argc -= each;
    count = argc - 3;
    if (count < 1 || count > MOST_TENSORS) {
        fprintf(stderr, "usage: run [--each] LIBRARY PREFIX INPUT.npy ...\n");
        return 2;
    }
    memset(outputs, 0, sizeof outputs);
    function = load(argv[1]);
    for (index = 0; index < count; index++) {
        inputs[index] = read_npy(argv[index + 3]);
        if (each) {
            samples = inputs[index].axes ? inputs[index].shape[0] : 0;
            if (samples < 1 || samples != inputs[0].shape[0]) {
                fail("no samples, or not as many as in the first input", argv[index + 3]);
            }
        }
    }
    for (sample = 0; sample < samples; sample++) {
        TVMFFIAny result;
        for (index = 0; index < count; index++) {
            char *data = inputs[index].data + sample * (int64_t)(inputs[index].size / samples);
            arguments[index] = tensor(&inputs[index], data, each);
        }
        result = call(function, arguments, count, "main");
        if (result.type_index == kTVMFFIArray) {
            output_count = (int)call_global("ffi.ArraySize", &result, 1).v_int64;
        }
        if (output_count > MOST_TENSORS) {
            fail("too many outputs", argv[1]);
        }
        for (index = 0; index < output_count; index++) {
            TVMFFIAny one = result;
            if (result.type_index == kTVMFFIArray) {
                pair[0] = result;
                pair[1] = integer(index);
                one = call_global("ffi.ArrayGetItem", pair, 2);
            }
            append(&outputs[index], one, each);
            if (result.type_index == kTVMFFIArray) {
                TVMFFIObjectDecRef(one.v_obj);
            }
        }
        TVMFFIObjectDecRef(result.v_obj);
        for (index = 0; index < count; index++) {
            TVMFFIObjectDecRef(arguments[index].v_obj);
        }
    }
    for (index = 0; index < output_count; index++) {
        write_npy(argv[2], index, &outputs[index]);
    }
    return 0;
}
