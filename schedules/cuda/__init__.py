"""Kernels for NVIDIA GPUs: what a product is (`problem`), what makes it (`template`), and the rest."""
