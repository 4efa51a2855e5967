"""Docker, base images, the image and what it takes to build it."""
