"""The sandbox in which chat templates are rendered as transformers renders them, and what is known of a template."""
