"""Kernels in C++ for CPUs, built on demand."""
