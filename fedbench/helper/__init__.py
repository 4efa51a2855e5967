"""Runs in a container that lives for a second, with rights that no client has."""
