"""`python -m sanakit.cli`: the command line without the console script."""

from sanakit.cli.app import main

main()
