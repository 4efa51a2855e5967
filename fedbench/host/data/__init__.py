"""Data sets -> one partition of images for each client."""
