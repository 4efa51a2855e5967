"""Facts of runs as tables of text."""
