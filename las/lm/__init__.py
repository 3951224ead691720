"""Language models: of characters and words, counted or trained."""
