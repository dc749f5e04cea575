"""An image classifier for handwritten digits."""
