"""Runs on the user's machine; never imports torch or flwr."""
