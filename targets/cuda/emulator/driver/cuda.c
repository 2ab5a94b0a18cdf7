/* libcuda.so.1 where there is no device: TVM's runtime loads, and finds no GPU. */
#define NO_DEVICE(name) int name(void) { return 100; }
NO_DEVICE(cuDeviceGetName)
NO_DEVICE(cuFuncSetAttribute)
NO_DEVICE(cuLaunchKernelEx)
NO_DEVICE(cuModuleGetFunction)
NO_DEVICE(cuModuleLoadData)
NO_DEVICE(cuModuleUnload)
NO_DEVICE(cuTensorMapEncodeTiled)
NO_DEVICE(cuGetErrorName)
NO_DEVICE(cuGetErrorString)
