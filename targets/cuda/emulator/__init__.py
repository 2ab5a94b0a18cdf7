"""A GPU in software: the libraries that TVM's CUDA runtime calls, over an interpreter of PTX."""
