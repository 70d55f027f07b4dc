"""``python -m pixelkin`` is the ``pixelkin`` program."""

from pixelkin.cli import main

main()
