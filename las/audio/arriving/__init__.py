"""Streams such as standard input: copied to a temporary file, and read while they arrive.

`las.audio.arriving.copy` copies, `las.audio.arriving.wav` reads WAV before its end is there. Other
formats reveal damage only to a reader that can seek: they are read when they are complete.
"""
