"""Every operation once more, as plainly as possible: pure Python, float64, lists in and lists out."""
