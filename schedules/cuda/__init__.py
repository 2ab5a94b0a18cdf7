"""Kernels for NVIDIA GPUs: a product (`problem`), its makers (`template`), and the rest."""
