"""Transcript <-> ids."""
