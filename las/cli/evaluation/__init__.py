"""Commands that measure a model on a test set, and choose what they show to be better."""
