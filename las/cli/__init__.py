"""The command line: commands parse options and print results; other folders do the work."""
