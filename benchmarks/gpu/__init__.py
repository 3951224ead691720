"""A GPU measured in minutes: what ``benchmarks/gpu.sh`` runs; see ``benchmarks/README.md``."""
