"""Predictions become the bytes of an answer."""
