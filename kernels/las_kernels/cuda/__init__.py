"""Kernels in CUDA C++, built on demand by nvcc."""
