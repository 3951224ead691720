"""The kernels of ``las_kernels`` against eager PyTorch and ``torch.compile``."""
