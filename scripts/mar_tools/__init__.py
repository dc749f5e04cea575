"""From a recipe to a verified archive, and to a server that runs it. Never packed into an archive."""
