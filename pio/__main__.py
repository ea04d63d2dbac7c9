"""``python -m pio`` is the command line."""

from pio.cli import main

main()
