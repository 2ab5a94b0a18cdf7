"""What the benchmarks of the CUDA target share.

`build` needs fewbits, nvcc and no GPU; everything that `run` imports needs torch, numpy, rich and
TVM's runtime, but neither fewbits nor a compiler, as GPUs are often found on bare machines.
"""
