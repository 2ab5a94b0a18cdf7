/* libcudart.so.13 in name: TVM's CUDA runtime asks for a library so called that has this version.
 * What it calls is in the other library, as both share one state. */
__attribute__((visibility("default"))) const char cudaFewbits[] = "emulated";
