"""An object detector for handwritten digits."""
