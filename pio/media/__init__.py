"""Pictures and videos: opened, checked, resized and cut into patches as published processors do it.

Needs Pillow, which ``pip install "pio[vision]"`` brings; files of video need PyAV too, ``pip install "pio[video]"``.
"""
