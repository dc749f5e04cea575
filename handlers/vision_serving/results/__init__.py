"""A model's outputs become predictions."""
