"""The network: frontend, listener, attention, speller, CTC."""
