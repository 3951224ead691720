"""``python -m las`` is the command ``las``, for torchrun."""

from las.cli import main

main()
