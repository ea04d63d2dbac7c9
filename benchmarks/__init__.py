"""The asv suite: what pio costs, from commit to commit. Compilation happens in ``setup`` and is never measured."""
