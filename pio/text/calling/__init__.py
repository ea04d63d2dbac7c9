"""Tool calls in what a model writes, found while it writes them."""
