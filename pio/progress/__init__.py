"""What takes longer than a second is said on standard error: loading, downloads, the first compilation."""
