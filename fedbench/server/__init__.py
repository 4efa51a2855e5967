"""Runs inside the server container."""
