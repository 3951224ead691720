"""Corpora as shards: archives of a thousand utterances, read from disk or from a server."""
