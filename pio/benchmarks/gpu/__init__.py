"""GPUs: how fast a token can be on paper (``gpu_roofline``), and what a GPU itself shows (``gpu_check``)."""
