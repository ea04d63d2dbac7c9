"""Everything that reads a model folder: weights, config, tokenizer and chat template."""
