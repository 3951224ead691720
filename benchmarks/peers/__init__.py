"""Programs that search with other recognisers, each run in an environment of its own."""
