"""Every touch of Flower's internals, and nothing else."""
