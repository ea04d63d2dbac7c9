"""Messages as clients of several interfaces write them render like the same messages written by hand.

Each form of a conversation is given to the real chat templates, where they are present.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pytest
from make_text import MODELS, folder_of
from pydantic import BaseModel
from test_text import CHECKPOINTS

from pio.errors import ConfigError
from pio.text.chat_template import ChatTemplate

Messages = list[dict[str, Any]]
REAL = [name for name in MODELS if name != "demo"]
ARGUMENTS = {"city": "Zürich", "days": 2, "deep": {"a": [1, 2.5, None, True]}, "quoted": '"<&>"\n'}


@pytest.fixture(params=REAL)
def template(request: pytest.FixtureRequest) -> ChatTemplate:
    folder = folder_of(request.param, CHECKPOINTS)
    if not folder.is_dir():
        pytest.skip(f"shared/checkpoints not present: {folder.name}")
    return ChatTemplate.from_folder(folder)


def by_hand() -> Messages:
    return [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather in Zürich, and the time?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"function": {"name": "weather", "arguments": ARGUMENTS}},
                {"function": {"name": "time", "arguments": {}}},
            ],
        },
        {"role": "tool", "content": "rain"},
        {"role": "tool", "content": '{"hour": 12}'},
        {"role": "assistant", "content": "Rain at noon."},
        {"role": "user", "content": "Thanks"},
    ]


def calls(messages: Messages) -> list[dict[str, Any]]:
    return messages[2]["tool_calls"]


def as_text(messages: Messages) -> None:
    for call in calls(messages):
        call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)


def empty_text(messages: Messages) -> None:
    calls(messages)[1]["function"]["arguments"] = ""


def blank_text(messages: Messages) -> None:
    calls(messages)[1]["function"]["arguments"] = " \n"


def null(messages: Messages) -> None:
    calls(messages)[1]["function"]["arguments"] = None


def missing(messages: Messages) -> None:
    del calls(messages)[1]["function"]["arguments"]


def labelled(messages: Messages) -> None:
    for index, call in enumerate(calls(messages)):
        call.update(type="function", id=f"call_{index}", index=index)
        messages[3 + index]["tool_call_id"] = f"call_{index}"


def beside_the_type(messages: Messages) -> None:
    messages[2]["tool_calls"] = [{"type": "function", **call["function"]} for call in calls(messages)]


def fields_of_none(messages: Messages) -> None:
    for message in messages:
        for field in ("refusal", "audio", "function_call", "tool_calls", "name", "reasoning", "reasoning_content"):
            message.setdefault(field, None)
        message["annotations"] = []
    for call in calls(messages):
        call["id"] = call["type"] = None


def empty_calls(messages: Messages) -> None:
    messages[5]["tool_calls"] = []


def null_content(messages: Messages) -> None:
    messages[2]["content"] = None


def no_content(messages: Messages) -> None:
    del messages[2]["content"]


def empty_list(messages: Messages) -> None:
    messages[2]["content"] = []


def parts(messages: Messages) -> None:
    for message in messages:
        text = message["content"]
        message["content"] = [{"type": "text", "text": piece} for piece in (text[:3], text[3:])]


def parts_of_responses(messages: Messages) -> None:
    for message in messages:
        kind = "output_text" if message["role"] == "assistant" else "input_text"
        message["content"] = [{"type": kind, "text": message["content"], "annotations": []}]


def tuples(messages: Messages) -> None:
    messages[2]["tool_calls"] = tuple(calls(messages))


def mappings(messages: Messages) -> None:
    messages[:] = [MappingProxyType(message) for message in messages]  # type: ignore[misc]


@pytest.mark.parametrize(
    "change",
    [as_text, empty_text, blank_text, null, missing, labelled, beside_the_type, fields_of_none, empty_calls]
    + [null_content, no_content, empty_list, parts, parts_of_responses, tuples, mappings],
)  # fmt: skip
def test_forms_of_a_conversation(template: ChatTemplate, change: Callable[[Messages], None]) -> None:
    messages = json.loads(json.dumps(by_hand()))
    change(messages)
    assert template.render(messages) == template.render(by_hand())


def test_functions_as_they_were_before_tools(template: ChatTemplate) -> None:
    messages, older = by_hand(), by_hand()
    del messages[2]["tool_calls"][1], messages[4]
    call = messages[2]["tool_calls"][0]["function"]
    text = json.dumps(ARGUMENTS, ensure_ascii=False)
    older[2] = {"role": "assistant", "content": None, "function_call": {**call, "arguments": text}}
    older[3:5] = [{"role": "function", "name": "weather", "content": "rain"}]
    assert template.render(older) == template.render(messages)


class Function(BaseModel):
    name: str
    arguments: str


class Call(BaseModel):
    id: str
    function: Function
    type: str = "function"


class Message(BaseModel):
    role: str
    content: str | None = None
    refusal: str | None = None
    annotations: list[str] | None = None
    function_call: Function | None = None
    tool_calls: list[Call] | None = None


@dataclass
class Turn:
    role: str
    content: str
    name: str | None = None


def test_objects_of_clients(template: ChatTemplate) -> None:
    found = [
        Call(id=f"c{i}", function=Function(name=name, arguments=json.dumps(given, ensure_ascii=False)))
        for i, (name, given) in enumerate((("weather", ARGUMENTS), ("time", {})))
    ]
    hand = by_hand()
    answer = Message(role="assistant", tool_calls=found)
    wanted = template.render(hand)
    assert template.render([*hand[:2], answer, *hand[3:]]) == wanted
    assert template.render([*hand[:2], answer.model_dump(), *hand[3:]]) == wanted
    assert (
        template.render([*hand[:2], {"role": "assistant", "content": None, "tool_calls": found}, *hand[3:]]) == wanted
    )
    assert template.render([Turn("system", "Be brief."), Turn("user", hand[1]["content"]), *hand[2:]]) == wanted


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image"},
        {"type": "image", "image": "x.png"},
        {"image": "x.png"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
        {"type": "input_image", "image_url": "data:image/png;base64,AA"},
        {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
        {"type": "audio", "audio": "x.wav"},
        {"type": "video", "video": "x.mp4"},
        {"type": "video_url", "video_url": {"url": "x"}},
        {"type": "file", "file": {"file_data": "AA"}},
        {"type": "input_file", "file_id": "x"},
        {"type": "anything", "text": "Hi"},
    ],
    ids=str,
)
def test_what_a_model_of_text_cannot_read(template: ChatTemplate, part: dict[str, Any]) -> None:
    for role in ("system", "user", "tool"):
        with pytest.raises(ConfigError, match=r'messages\[0\]\["content"\]\[1\] .*reads text only'):
            template.render([{"role": role, "content": [{"type": "text", "text": "Look"}, part]}])


@pytest.mark.parametrize("field", ["images", "audio", "videos", "files"])
def test_pictures_beside_the_content(template: ChatTemplate, field: str) -> None:
    with pytest.raises(ConfigError, match=rf'messages\[0\]\["{field}"\].*reads text only'):
        template.render([{"role": "user", "content": "Look", field: ["AA"]}])


def test_an_unknown_role_is_written_or_refused(template: ChatTemplate) -> None:
    for role in ("developer", "System", "bot", "ipython"):
        messages = [{"role": role, "content": "ok"}, {"role": "user", "content": "Is it ok? ok"}]
        with_it, without = None, template.render(messages[1:])
        try:
            with_it = template.render(messages)
        except ConfigError as error:
            assert f"messages[0] (role '{role}')" in str(error)
        assert with_it is None or len(with_it) > len(without) + len("ok")


def test_pictures_reach_a_model_that_takes_them() -> None:
    folder = folder_of("qwen3-vl-2b", CHECKPOINTS)
    if not folder.is_dir():
        pytest.skip(f"shared/checkpoints not present: {folder.name}")
    parts = [{"type": "image_url", "image_url": {"url": "x"}}, {"image": "y"}, {"type": "text", "text": "Which?"}]
    text = ChatTemplate.from_folder(folder, modalities=("image",)).render([{"role": "user", "content": parts}])
    assert text.count("<|image_pad|>") == 2
    assert text.endswith("Which?<|im_end|>\n<|im_start|>assistant\n")
    with pytest.raises(ConfigError, match="'video'; this model reads image and text only"):
        ChatTemplate.from_folder(folder, modalities=("image",)).render([{"role": "user", "content": [{"video": "x"}]}])


def test_compact_json_stays_as_the_model_wrote_it_where_text_is_taken() -> None:
    folder = folder_of("qwen3-0.6b", CHECKPOINTS)
    if not folder.is_dir():
        pytest.skip(f"shared/checkpoints not present: {folder.name}")
    messages = by_hand()
    calls(messages)[0]["function"]["arguments"] = '{"city":"Oslo"}'
    assert '"arguments": {"city":"Oslo"}}\n</tool_call>' in ChatTemplate.from_folder(folder).render(messages)
