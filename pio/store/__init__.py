"""What is kept on disk beyond the end of a process: items that are known by keys, in files of a few megabytes."""
