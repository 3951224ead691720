"""Search: encoded utterances -> hypotheses."""
