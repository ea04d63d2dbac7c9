"""Names that Windows takes for something else, as its documentation and CPython's ``os.path.isreserved`` have them."""

import ntpath

import pytest

from pio.system.file_names import name_problem, path_problem, usual

RESERVED = [
    "con",
    "NUL",
    "aux.txt",
    "Prn.tar.gz",
    "com1.safetensors",
    "LPT9",
    "com¹",
    "conin$",
    "CONOUT$.json",
    "nul .x",
]
ENDING = ["model.", "model ", "model.safetensors ", "..."]
FORBIDDEN = [
    "config.json:stream",
    "config.json::$DATA",
    "C:model.safetensors",
    "a*b",
    "a?",
    'a"b',
    "a|b",
    "<a>",
    "a\x07",
]
USUAL = ["config.json", "model-00001-of-00002.safetensors", ".pio", "console", "nul-1.json", "com10", "lpt", "é Ω.json"]


@pytest.mark.parametrize("name", [*RESERVED, *ENDING, *FORBIDDEN, *USUAL])
def test_names_that_are_no_file_of_a_folder(name):
    problem = name_problem(name)
    assert (problem is None) == (name in USUAL)
    assert problem is None or problem.startswith("Windows ")


@pytest.mark.skipif(not hasattr(ntpath, "isreserved"), reason="needs Python 3.13")
@pytest.mark.parametrize("name", [*RESERVED, *ENDING, *FORBIDDEN, *USUAL])
def test_python_agrees(name):
    assert ntpath.isreserved(f"C:\\{name}") == (name_problem(name) is not None)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("C:\\models\\nul", "Windows has a device of that name: 'nul'; choose another"),
        ("C:\\con\\model", "of that name: 'con'"),
        ("C:/models/m./x", "at the end of a name: 'm.'"),
        ("C:\\models\\C:\\x", "lets no name hold ':': 'C:'"),
        ("\\\\server\\share\\aux\\m", "of that name: 'aux'"),
        ("\\\\.\\PhysicalDrive0", "Windows has a device there; give a path that begins with a drive"),
        ("//./pipe/model", "Windows has a device there"),
        ("C:\\" + "x" * 257, "it has 260 characters, and Windows lets this program use 259"),
    ],
)
def test_paths_that_lead_nowhere(path, words):
    assert words in (path_problem(path, long_paths=False) or "")


@pytest.mark.parametrize(
    "path",
    [
        "C:\\models\\m",
        "C:\\a\\..\\b\\.",
        "\\\\server\\share\\m",
        "C:\\" + "x" * 256,
        "\\\\?\\C:\\con",
        "\\\\.\\C:\\models",
        "relative\\m",
        "C:",
    ],
)
def test_paths_that_may_lead_somewhere(path):
    assert path_problem(path, long_paths=False) is None


def test_what_leads_back_is_not_counted():
    assert path_problem("C:\\" + "back\\..\\" * 40 + "m", long_paths=False) is None
    long = "C:\\back\\..\\" + "x" * 257
    assert "it has 260 characters" in (path_problem(long, long_paths=False) or "")
    assert "con" in (path_problem("C:\\con\\..\\m", long_paths=False) or "")


def test_long_paths_where_they_are_enabled():
    long = "C:\\" + "\\".join(["k" * 50] * 8)
    assert len(long) > 400 and path_problem(long, long_paths=True) is None
    assert "LongPathsEnabled" in (path_problem(long, long_paths=False) or "")
    assert path_problem("\\\\?\\" + long, long_paths=False) is None


@pytest.mark.parametrize(
    ("path", "same"),
    [
        ("\\\\?\\C:\\Models\\m", "C:\\Models\\m"),
        ("c:\\Models\\m", "C:\\Models\\m"),
        ("\\\\?\\UNC\\Server\\share\\m", "\\\\SERVER\\SHARE\\m"),
        ("\\\\server\\Share\\m", "\\\\SERVER\\SHARE\\m"),
        ("\\\\?\\Volume{1}\\m", "\\\\?\\VOLUME{1}\\m"),
    ],
)
def test_one_spelling(path, same):
    assert usual(path) == same
    assert usual(same) == same
