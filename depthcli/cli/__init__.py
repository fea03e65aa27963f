"""The command line: parse, one call, report. No network, no backend."""
