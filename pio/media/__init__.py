"""Pictures and videos: opened, checked, resized and cut into patches as published processors do it.

Needs Pillow (``pip install pillow``); files of video need PyAV too (``pip install av``).
"""
