"""What needs more rights than a client has, in a container that lives for a second."""
