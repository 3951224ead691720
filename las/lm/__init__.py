"""Language models of characters and words: n-grams and LSTM."""
