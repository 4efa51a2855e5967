"""What is up on this computer: containers, their limits, their networks."""
