"""NVIDIA GPUs: whole models as one library of tensor-core kernels."""
