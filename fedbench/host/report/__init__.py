"""A run as tables, CSV and an HTML page."""
