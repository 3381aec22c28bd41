"""``python -m skyloom.cli`` is ``skyloom``."""

from skyloom.cli.commands import main

main()
