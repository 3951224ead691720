"""Bulk transcription: inputs -> blocks -> workers of Ray Data -> a part file for each block."""
