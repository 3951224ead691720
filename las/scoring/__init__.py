"""WER of texts; no model is needed."""
