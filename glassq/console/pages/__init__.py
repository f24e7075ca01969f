"""The pages: each calls operations, and chooses a template."""
