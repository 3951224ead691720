"""Why this text: what a model considered, as data, HTML and pictures."""
