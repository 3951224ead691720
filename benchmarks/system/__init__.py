"""The recogniser as a whole: training, search, files to texts."""
