"""Sizes of kernels found by measurement: what is tuned, how, and where the results are kept."""
