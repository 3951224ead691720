"""The command ``las transcribe``: find inputs -> plan -> transcribe -> write, a module each."""
