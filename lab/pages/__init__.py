"""The pages of docs/evidence: a template each, and a module of the same name that reads its values from lab/results."""
