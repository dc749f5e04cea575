"""Encoded pictures become pixels at model size."""
