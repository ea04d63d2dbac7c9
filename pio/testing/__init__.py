"""What tests of pio and of its plugins share: naive references, Hypothesis strategies, comparisons."""
