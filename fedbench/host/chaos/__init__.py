"""Breaks a federation on purpose, and checks what its run makes of that."""
