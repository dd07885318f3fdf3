"""`python -m sanakit.cli`: the command line where the console script is not installed."""

from sanakit.cli.app import main

main()
