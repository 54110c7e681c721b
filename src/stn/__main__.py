"""`python -m stn`: the command line."""

from stn.cli import main

main()
