"""The command line: thin commands over the public Python interface, one file each.

Nothing here imports torch before a command has to: `sanakit --help` answers at once.
"""

from sanakit.cli.app import app, main

__all__ = ["app", "main"]
