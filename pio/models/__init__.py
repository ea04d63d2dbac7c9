"""Model plugins, one folder each; none imports another."""
