"""Pictures and videos on the command line."""

import json
import os
import shutil
from pathlib import Path

import pytest

import pio as package
from pio.cli.pictures import dropped

MODEL = Path(__file__).parent.parent / "golden/qwen3_vl/video_bf16"
PHOTO, ODD = MODEL / "pictures/photo.jpg", MODEL / "pictures/odd.png"
SHORT = ("-n", 4, "-t", 0)


@pytest.fixture(scope="module")
def model():
    with package.load(MODEL) as model:
        yield model


@pytest.fixture
def frames(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(4):
        shutil.copy(MODEL / f"pictures/frame{number}.png", folder)
    (folder / "notes.txt").write_text("no picture")
    return folder


def asked(model, *parts):
    message = {"role": "user", "content": [*parts[:-1], {"type": "text", "text": parts[-1]}]}
    return model.generate([message], max_new_tokens=4, temperature=0.0)


def image(path):
    return {"type": "image", "image": str(path)}


def test_pictures_go_before_the_question(pio, model):
    ran = pio("generate", MODEL, "Which?", "--image", PHOTO, "--image", ODD, "--json", *SHORT)
    found, expected = json.loads(ran.stdout), asked(model, image(PHOTO), image(ODD), "Which?")
    assert found["token_ids"] == expected.token_ids
    assert found["usage"]["image_tokens"] == expected.usage.image_tokens == 10
    assert found["usage"]["prompt_tokens"] == expected.usage.prompt_tokens


def test_a_folder_of_pictures_is_a_video(pio, model, frames):
    ran = pio("generate", MODEL, "Then?", "--video", frames, "--fps", 2, "--image", ODD, "--json", *SHORT)
    pictures = [str(frames / f"frame{number}.png") for number in range(4)]
    expected = asked(model, image(ODD), {"type": "video", "video": pictures, "fps": 2}, "Then?")
    assert json.loads(ran.stdout)["token_ids"] == expected.token_ids


def test_stats_say_how_many_tokens_are_pictures(pio):
    ran = pio("generate", MODEL, "What?", "--image", PHOTO, "--stats", *SHORT)
    assert ran.exit_code == 0 and "(6 of pictures) + 4 tokens" in ran.stderr


def test_fewer_pixels_are_fewer_tokens(pio):
    ran = pio("generate", MODEL, "What?", "--image", PHOTO, "--json", "--max-pixels", 1024, *SHORT)
    assert json.loads(ran.stdout)["usage"]["image_tokens"] < 6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("demo", "What?", "--image", PHOTO), "demo reads text alone"),
        ((MODEL, "What?", "--image", "nowhere.png"), "--image nowhere.png: there is no such file"),
        ((MODEL, "What?", "--image", MODEL / "config.json"), "is text"),
        ((MODEL, "What?", "--image", "https://example.com/a.png"), "--allow-remote"),
        ((MODEL, "What?", "--video", MODEL / "pictures"), "--fps"),
        ((MODEL, "What?", "--video", PHOTO, "--fps", 2), "--fps is for folders"),
        ((MODEL, "What?", "--video", MODEL / "expected", "--fps", 2), "no pictures are in this folder"),
        ((MODEL, "What?", "--fps", 2), "--fps is for --video"),
        ((MODEL, "--prefix", "a", "--image", PHOTO), "--image and --video are for questions"),
    ],
)
def test_what_cannot_be_seen_is_refused_in_one_line(pio, arguments, words):
    ran = pio("generate", *arguments, *SHORT)
    assert ran.exit_code == 1 and ran.stdout == ""
    assert ran.stderr.startswith("error: ") and ran.stderr.count("\n") == 1 and words in ran.stderr


def test_a_conversation_takes_pictures_along(pio, model):
    ran = pio("chat", MODEL, *SHORT, input=f"/image {PHOTO}\nWhat?\nWhich? {ODD}\n")
    first = asked(model, image(PHOTO), "What?")
    messages = [
        {"role": "user", "content": [image(PHOTO), {"type": "text", "text": "What?"}]},
        first.message,
        {"role": "user", "content": [image(ODD), {"type": "text", "text": "Which?"}]},
    ]
    second = model.generate(messages, max_new_tokens=4, temperature=0.0)
    assert ran.stdout == f"{first.text}\n{second.text}\n"
    assert ran.stderr.splitlines() == [
        "photo.jpg goes with what you say next",
        "odd.png goes with what you said",
    ]


def test_a_path_alone_waits_for_words_and_clear_forgets_it(pio, model):
    ran = pio("chat", MODEL, *SHORT, input=f"'{PHOTO}'\n/clear\nWhat?\n{PHOTO}\nWhat?\n")
    alone = model.generate([{"role": "user", "content": "What?"}], max_new_tokens=4, temperature=0.0)
    assert ran.stdout.startswith(alone.text + "\n")
    assert ran.stderr.splitlines() == [
        "photo.jpg goes with what you say next",
        "forgotten",
        "photo.jpg goes with what you say next",
    ]


def test_a_video_in_a_conversation(pio, frames):
    ran = pio("chat", MODEL, *SHORT, "--fps", 2, input=f"/video {frames}\nWhat?\n/video\n/image nowhere.png\n")
    assert ran.exit_code == 0 and ran.stderr.splitlines() == [
        "frames goes with what you say next",
        "/video takes the path of a file: /video PATH",
        "error: /image nowhere.png: there is no such file; correct the path",
    ]


def test_a_model_for_text_says_so(pio):
    ran = pio("chat", "demo", *SHORT, "--no-think", input=f"/image {PHOTO}\n{PHOTO}\nRename {PHOTO}\n")
    said = "error: demo reads text alone; choose a model that sees, pio models lists them"
    assert ran.stderr.splitlines() == [said, said] and len(ran.stdout.strip()) > 0


def test_paths_as_terminals_paste_them(tmp_path):
    path = tmp_path / "my own picture.PNG"
    path.write_bytes(b"")
    for pasted in (str(path), f"'{path}'", f'"{path}"', f"{path} "):
        assert dropped(pasted) == ("", str(path))
        assert dropped(f"What  is this? {pasted}") == ("What  is this?", str(path))
    if os.sep == "/":
        escaped = str(path).replace(" ", "\\ ")
        assert dropped(f"Look: {escaped}") == ("Look:", str(path))
        assert dropped(path.as_uri()) == ("", str(path))


def test_what_is_no_dropped_path(tmp_path):
    (tmp_path / "a.txt").write_text("")
    for line in ("", "hello", "what is a .png", f"{tmp_path}/a.txt", f"{tmp_path}/none.png", "x" * 9000 + ".png"):
        assert dropped(line) is None
    picture = tmp_path / "a.png"
    picture.write_bytes(b"")
    assert dropped(f"first line\n{picture}") is None


def test_verify_shows_a_picture(pio):
    ran = pio("verify", MODEL)
    assert ran.exit_code == 0 and "pictures: sees a picture as 6 tokens" in ran.stdout
    assert "pictures: none: text alone" in pio("verify", "demo").stdout


def test_a_quantized_folder_sees_the_same(pio, tmp_path):
    made = tmp_path / "made"
    assert pio("quantize", MODEL, made, "--format", "int4").exit_code == 0
    assert {path.name for path in made.iterdir()} >= {"preprocessor_config.json", "video_preprocessor_config.json"}
    asked = ("What?", "--image", PHOTO, "--verbose", *SHORT)
    stored, given = pio("generate", made, *asked), pio("generate", MODEL, *asked, "--quantize", "int4")
    assert stored.exit_code == 0 and stored.stdout == given.stdout
    assert "layers int4, tables int8, tower int8" in stored.stderr and "input: text, image, video" in stored.stderr


def test_doctor_says_what_pictures_need(pio, monkeypatch):
    from pio.cli import findings

    found = {f["name"]: f for f in json.loads(pio("doctor", "--json").stdout)["findings"]}
    assert found["pictures and videos"]["state"] == "ok"
    installed = findings.version

    def version(name):
        if name in ("pillow", "av"):
            raise findings.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(findings, "version", version)
    shown = pio("doctor").stdout
    assert "pip install pillow has" in shown and "pip install av has" in shown
