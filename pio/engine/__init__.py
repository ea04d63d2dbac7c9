"""From requests to tokens: sequences, blocks, first-come-first-served scheduling, sampling, results."""
