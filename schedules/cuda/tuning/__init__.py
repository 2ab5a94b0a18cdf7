"""Kernels of products found by measurement: candidates, records, and who uses them."""
