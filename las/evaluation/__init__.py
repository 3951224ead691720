"""A model on a test set: scores, tuned searches, calibration, plots."""
