"""Measures compiled candidates: on any machine with a GPU, Python, numpy and TVM's runtime.

`targets/cuda/tuning.py` writes a folder with libraries and a plan, and puts a copy of this package
beside them, so nothing here imports anything of fewbits but its own modules, and TVM only in the
process that touches the GPU (`worker`).
"""
