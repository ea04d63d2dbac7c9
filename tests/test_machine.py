import pytest

from pio import machine


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"memory.max": "1000\n", "memory.current": "900\n"}, 100),
        (
            {
                "memory.max": "1000\n",
                "memory.current": "900\n",
                "memory.stat": "anon 250\nfile 640\nactive_file 400\ninactive_file 200\nslab 9\n",
            },
            700,
        ),
        ({"memory.max": "1000\n", "memory.current": "1001\n"}, 0),
        ({"memory.max": "max\n", "memory.current": "900\n"}, 1 << 40),
        ({}, 1 << 40),
    ],
)
def test_memory_of_a_control_group(tmp_path, monkeypatch, files, expected):
    """What the files of a container hold in memory is not lost to it."""
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr(machine, "_system_available", lambda: 1 << 40)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert machine.available_memory() == expected
