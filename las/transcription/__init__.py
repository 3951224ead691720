"""Audio of any length -> words, segments and files."""
