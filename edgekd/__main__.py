"""``python -m edgekd``: the same as the console script."""

from edgekd.cli import main

main()
