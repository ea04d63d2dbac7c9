"""Makes the demo model: its text, its tokenizer, its training, its figures."""
