"""A .mar archive: read, check, sign and describe it."""
