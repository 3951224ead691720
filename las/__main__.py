"""``python -m las`` is the command ``las``, for torchrun."""

from las.cli.main import main

main()
