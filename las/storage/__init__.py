"""Files whole or not at all: weights, training states, settings."""
