"""Runs inside a client container."""
