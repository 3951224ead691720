"""What the kernels use, measured without running them: programs for developers."""
