"""Load tests of served models."""
