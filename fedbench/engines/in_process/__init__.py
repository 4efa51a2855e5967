"""A run in one program: the server's rounds and the clients' ClientApp, with memory for a network.

For accuracies alone: no containers, so nothing is emulated and no device's seconds are known. It
needs torch where it runs, on the CPU or on a GPU.
"""
