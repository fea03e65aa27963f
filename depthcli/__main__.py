"""`python -m depthcli` is the command `depth`."""

from depthcli.cli.app import main

main()
