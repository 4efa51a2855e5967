"""A run in containers, one for each client."""
