"""What models keep between steps: pages of keys and values or of latents, and states."""
