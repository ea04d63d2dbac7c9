"""Pictures as clients write them are found, and the template sees a mark in the place of each."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pio.errors import ConfigError
from pio.media.prepared import prepare_picture, prepare_video
from pio.plugin.media_parts import take_media
from pio.tensor import Tensor

TEXT = {"type": "text", "text": "What is this?"}
IMAGE, VIDEO = {"type": "image"}, {"type": "video"}
PREPARES = {"image": prepare_picture, "video": prepare_video}
PIXELS = Tensor.zeros((2, 2, 3), "uint8")


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ({"type": "image", "image": "a.jpg"}, "a.jpg"),
        ({"type": "image", "url": "https://example.com/a.jpg"}, "https://example.com/a.jpg"),
        ({"type": "image", "path": Path("a.jpg")}, Path("a.jpg")),
        ({"type": "image", "base64": "aGk="}, "data:;base64,aGk="),
        ({"type": "image_url", "image_url": {"url": "data:,aGk=", "detail": "high"}}, "data:,aGk="),
        ({"type": "image_url", "image_url": "a.jpg"}, "a.jpg"),
        ({"type": "input_image", "image_url": "a.jpg"}, "a.jpg"),
        (
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
            "data:;base64,aGk=",
        ),
        ({"type": "image", "source": {"type": "url", "url": "a.jpg"}}, "a.jpg"),
        ({"image": PIXELS}, PIXELS),
        ({"type": "image", "image": b"bytes"}, b"bytes"),
    ],
    ids=str,
)
def test_parts_of_every_client(part: dict[str, Any], value: Any) -> None:
    given = [{"role": "user", "content": [part, TEXT]}]
    messages, found = take_media(given)
    assert messages == [{"role": "user", "content": [IMAGE, TEXT]}]
    assert [(one.kind, one.value) for one in found] == [("image", value)]
    assert found[0].name.startswith('messages[0]["content"][0]')
    assert given[0]["content"][0] is part, "what was given stays as it was"


@pytest.mark.parametrize(
    ("prompt", "parts", "values"),
    [
        ({"text": "Hi", "image": "a.jpg"}, [IMAGE], ["a.jpg"]),
        (("Hi", "a.jpg"), [IMAGE], ["a.jpg"]),
        (("Hi", ["a.jpg", b"b"]), [IMAGE, IMAGE], ["a.jpg", b"b"]),
        (
            {"text": "Hi", "images": ["a", "b"], "video": ["f0", "f1"], "fps": 2},
            [IMAGE, IMAGE, VIDEO],
            ["a", "b", ["f0", "f1"]],
        ),
        ({"text": "Hi", "videos": ["a.mp4", "b.mp4"]}, [VIDEO, VIDEO], ["a.mp4", "b.mp4"]),
        ({"text": "Hi", "image": None}, None, []),
    ],
    ids=str,
)
def test_a_text_with_pictures_is_what_a_user_says(prompt: Any, parts: Any, values: list[Any]) -> None:
    messages, found = take_media(prompt)
    content = "Hi" if parts is None else [*parts, {"type": "text", "text": "Hi"}]
    assert [message["role"] for message in messages] == ["user"]
    assert messages[0]["content"] == content
    assert [one.value for one in found] == values
    assert all(one.settings == ({"fps": 2} if one.kind == "video" and "fps" in prompt else {}) for one in found)


def test_token_ids_hold_their_own_marks() -> None:
    ids, found = take_media({"text": [1, 2, 3], "images": ["a", "b"]})
    assert ids == [1, 2, 3] and [one.value for one in found] == ["a", "b"]


def test_pictures_beside_a_content() -> None:
    messages, found = take_media(
        [{"role": "user", "content": "Hi", "images": ["a", "b"]}, {"role": "assistant", "content": "Yes"}]
    )
    assert messages[0] == {"role": "user", "content": [IMAGE, IMAGE, {"type": "text", "text": "Hi"}]}
    assert messages[1] == {"role": "assistant", "content": "Yes"}
    assert [one.name for one in found] == ['messages[0]["images"][0]', 'messages[0]["images"][1]']


def test_videos_keep_what_is_said_of_them() -> None:
    part = {"type": "video", "video": ["a.png", "b.png"], "fps": 1.5}
    messages, found = take_media([{"role": "user", "content": [part]}])
    assert messages[0]["content"] == [VIDEO]
    assert found[0].value == ["a.png", "b.png"] and found[0].settings == {"fps": 1.5}


@pytest.mark.parametrize(
    ("part", "kind", "settings"),
    [
        ({"type": "image", "image": "a", "max_pixels": 4096}, "image", {"max_pixels": 4096}),
        ({"type": "image", "image": "a", "min_pixels": 1024, "max_pixels": None}, "image", {"min_pixels": 1024}),
        ({"type": "image_url", "image_url": {"url": "a", "max_pixels": 9}}, "image", {"max_pixels": 9}),
        (
            {"type": "image_url", "image_url": {"url": "a", "max_pixels": 9}, "max_pixels": 9},
            "image",
            {"max_pixels": 9},
        ),
        ({"type": "video", "video": "a", "nframes": 2, "fps": 3}, "video", {"num_frames": 2, "fps": 3}),
        (
            {"type": "video_url", "video_url": {"url": "a", "fps": 2, "num_frames": 4}},
            "video",
            {"fps": 2, "num_frames": 4},
        ),
        (
            {"type": "video", "video": "a", "min_pixels": 1, "max_pixels": 2},
            "video",
            {"min_pixels": 1, "max_pixels": 2},
        ),
        ({"type": "image", "image": "a", "text": None, "video": None, "id": 3, "uuid": "x"}, "image", {}),
        ({"type": "image_url", "image_url": {"url": "a", "detail": "low"}, "cache_control": {}}, "image", {}),
        ({"type": "image", "base64": "aGk=", "mime_type": "image/png"}, "image", {}),
    ],
    ids=str,
)
def test_what_is_said_beside_a_part(part: dict[str, Any], kind: str, settings: dict[str, Any]) -> None:
    messages, found = take_media([{"role": "user", "content": [part]}])
    assert messages[0]["content"] == [{"type": kind}] and [one.settings for one in found] == [settings]


def test_what_is_said_beside_a_text() -> None:
    given = {"text": "Hi", "image": "a", "videos": ["b", {"video": "c", "num_frames": 3}], "max_pixels": 9, "fps": 2}
    messages, found = take_media(given)
    assert messages[0]["content"] == [IMAGE, VIDEO, VIDEO, {"type": "text", "text": "Hi"}]
    assert [one.settings for one in found] == [
        {"max_pixels": 9},
        {"max_pixels": 9, "fps": 2},
        {"max_pixels": 9, "fps": 2, "num_frames": 3},
    ]
    messages, _ = take_media([{"role": "user", "content": "Hi", "image": "a", "max_pixels": 9, "name": "Ann"}])
    assert messages[0].keys() == {"role", "content", "name"}


def test_keyword_arguments_are_those_of_media() -> None:
    names = {kind: set(inspect.signature(made).parameters) for kind, made in PREPARES.items()}
    part = {"max_pixels": 5, "min_pixels": 4, "fps": 2, "num_frames": 2}
    for kind, fields in (("video", part), ("image", {"max_pixels": 5, "min_pixels": 4})):
        (found,) = take_media([{"role": "user", "content": [{"type": kind, kind: "a", **fields}]}])[1]
        assert found.settings.keys() <= names[kind]


@dataclass
class Message:
    role: str
    content: Any


def test_messages_that_are_objects() -> None:
    messages, found = take_media([Message("user", [{"type": "image", "image": "a"}, TEXT])])
    assert messages == [{"role": "user", "content": [IMAGE, TEXT]}] and found[0].value == "a"


@pytest.mark.parametrize(
    "prompt", ["Hi", [1, 2, 3], [], None, 5, [{"role": "user", "content": "Hi"}], ("a", 2, 3)], ids=str
)
def test_prompts_without_pictures_stay_as_they_are(prompt: Any) -> None:
    assert take_media(prompt) == (prompt, [])


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ({"text": "Hi", "picture": "a"}, "picture"),
        ({"image": "a"}, "text=None"),
        ({"text": 5, "image": "a"}, "text=5"),
        ([{"role": "user", "content": [{"type": "image"}]}], r'messages\[0\]\["content"\]\[0\] holds none'),
        ([{"role": "user", "content": [{"type": "image", "image": "a", "url": "b"}]}], "image and url"),
        (
            [{"role": "user", "content": [{"type": "image", "image": "a", "fps": 2}]}],
            "holds 'fps', which has no meaning",
        ),
        ([{"role": "user", "content": [{"type": "image", "image": "a", "num_frames": 2}]}], "'num_frames'"),
        ([{"role": "user", "content": [{"type": "video", "video": "a", "total_pixels": 2}]}], "'total_pixels'"),
        ([{"role": "user", "content": [{"type": "image", "image": "a", "text": "Hi"}]}], "'text'.* a part of its own"),
        ([{"role": "user", "content": [{"type": "image", "image": {"url": "a", "path": "b"}}]}], "'path'"),
        ([{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "a", "frames": 2}}]}], "'frames'"),
        (
            [{"role": "user", "content": [{"type": "video", "video": "a", "nframes": 2, "num_frames": 3}]}],
            "say it once",
        ),
        (
            [{"role": "user", "content": [{"type": "video", "video": {"url": "a", "fps": 1}, "fps": 2}]}],
            "fps is 2, and 1 within; say it once",
        ),
        ({"text": "Hi", "image": "a", "fps": 2}, "holds 'fps' beside pictures"),
    ],
    ids=str,
)
def test_what_names_no_picture_is_refused(prompt: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        take_media(prompt)
