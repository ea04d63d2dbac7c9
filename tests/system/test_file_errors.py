"""What errors of Windows mean for a file: the cause is named, and the remedy is one that helps."""

import pytest

from pio.system.file_errors import file_problem


@pytest.mark.parametrize(
    ("code", "writing", "reading"),
    [
        (32, "another program, or this one, has it open; close it", "lets nobody else read it; close it there"),
        (33, "another program, or this one, has it open; close it", "lets nobody else read it; close it there"),
        (1224, "or write elsewhere", "close it there"),
        (21, "its drive or network folder is not there (error 21 of Windows); connect it again", "connect it again"),
        (64, "connect it again", "connect it again"),
        (1006, "connect it again", "connect it again"),
        (
            1117,
            "its disk fails (error 1117 of Windows); check the disk, or write elsewhere",
            "download the model again",
        ),
        (23, "or write elsewhere", "check the disk and download the model again"),
        (19, "write-protected", None),
        (0, None, None),
        (2, None, None),
        (5, None, None),  # Python's PermissionError tells as much
        (112, None, None),
    ],
)
def test_what_an_error_means(code, writing, reading):
    for expected, found in ((writing, file_problem(code, writing=True)), (reading, file_problem(code, writing=False))):
        assert (found is None) == (expected is None)
        assert expected is None or (found is not None and expected in found and "free" not in found)
