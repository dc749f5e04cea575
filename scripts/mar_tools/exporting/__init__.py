"""A network becomes an artifact in an export folder."""
