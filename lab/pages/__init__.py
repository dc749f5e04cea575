"""The pages of docs/evidence: templates, and what renders them."""
