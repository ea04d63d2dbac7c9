"""How fast models are: what is measured, on which model, and how it is reported."""
