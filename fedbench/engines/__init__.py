"""What executes a run, on this computer."""
