"""Plain PyTorch; knows nothing of Flower or Docker."""
