"""How fast the kernels are, against eager PyTorch and torch.compile."""
