"""Profile and host -> what each client gets. Pure."""
