"""The commands ``las lm``."""
