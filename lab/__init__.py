"""How the claims of the project are measured. It knows the product; the product does not know it."""
