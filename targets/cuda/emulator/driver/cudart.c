/* libcudart in name only: TVM's CUDA runtime asks for a library with this version of its symbols.
 * What it calls is in the other library, as both share one state. */
__attribute__((visibility("default"))) const char cudaFewbits[] = "emulated";
