"""The run that this server executes: one at a time, and to its end."""
