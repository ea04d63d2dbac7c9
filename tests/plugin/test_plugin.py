"""What a model says to its callers: arguments taken and refused, whichever way they are given."""

import copy
import pickle
from dataclasses import replace

import pytest

import pio
from pio.text.chat_template import ChatTemplate

PROMPT = "def area(width, height):"


@pytest.fixture(scope="module")
def model():
    with pio.load("demo") as loaded:
        yield loaded


def test_fields_in_a_dict_are_fields(model):
    named = model.generate(PROMPT, max_new_tokens=7, temperature=0)
    given = model.generate(PROMPT, {"max_new_tokens": 9, "temperature": 0, "stop": None}, max_new_tokens=7)
    assert named.token_ids == given.token_ids and len(given.token_ids) == 7
    with pytest.raises(pio.ConfigError, match="params: found 0, expected"):
        model.generate(PROMPT, 0)


CHAT = [{"role": "user", "content": "Add two numbers."}]
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {}}}]


def test_only_conversations_have_reasoning(model):
    asked = model.apply_chat_template(CHAT)
    fields = {"max_new_tokens": 5, "temperature": 0}
    assert model.generate((message for message in CHAT), **fields).token_ids == model.generate(CHAT, **fields).token_ids
    prompts = model.loaded.prompts
    assert prompts.encode(asked).reasoning is None and prompts.encode([5, 6]).reasoning is None
    reasoning = prompts.encode(CHAT).reasoning
    assert reasoning is not None and not reasoning.inside and reasoning.possible
    assert not prompts.encode(CHAT, enable_thinking=False).reasoning.possible


@pytest.mark.parametrize("given", ["a text", b"a text", CHAT[0], 3, None])
def test_several_prompts_are_a_list(model, given):
    with pytest.raises(pio.ConfigError, match=r"infer_batch: found .* expected a list of prompts; give one prompt in"):
        model.infer_batch(given, max_new_tokens=1)


def test_an_error_says_which_of_several_prompts_it_is_about(model):
    with pytest.raises(pio.ConfigError, match="found a int") as caught:
        model.infer_batch(["a text", 3], max_new_tokens=1)
    assert caught.value.__notes__ == ["This is about prompt 1 of infer_batch."]


@pytest.mark.parametrize("given", ["hello", b"hello", CHAT[0], [], [1, 2], ["hello"], None])
def test_only_messages_are_fitted(model, given):
    with pytest.raises(pio.ConfigError, match="messages"):
        model.fit_messages(given, 50)
    assert model.fit_messages(CHAT, 500) == CHAT


def test_a_message_without_its_list_is_refused(model):
    with pytest.raises(pio.ConfigError, match=r"prompt: found a dict, expected .* list of messages"):
        model.generate(CHAT[0])


def test_tools_that_the_model_would_not_see_are_refused(model):
    for call in (model.apply_chat_template, model.chat_completion):
        with pytest.raises(pio.ConfigError, match=r"tools: the chat template of .* has no place for tools"):
            call(CHAT, tools=TOOLS)
    assert model.apply_chat_template(CHAT, tools=[]) == model.apply_chat_template(CHAT)


def test_template_variables_reach_the_template(model, monkeypatch):
    source = "{{ mood }}{% for m in messages %}{{ m.content }}{% endfor %}"
    monkeypatch.setattr(model.loaded.prompts, "chat_template", ChatTemplate(source))
    assert model.apply_chat_template(CHAT, template_variables={"mood": "glad: "}) == "glad: Add two numbers."
    assert model.apply_chat_template(CHAT, template_variables={"mood": "x"}, mood="y") == "yAdd two numbers."
    long = [*CHAT, {"role": "assistant", "content": "def"}, *CHAT]
    assert model.fit_messages(long, 45, template_variables={"mood": "very " * 20}) == CHAT
    for wrong in ("mood", {"messages": CHAT}):
        for call in (model.apply_chat_template, model.generate):
            with pytest.raises(pio.ConfigError, match=r"template_variables: found .* expected a dict"):
                call(CHAT, template_variables=wrong)


def test_metadata_stay_those_of_the_model():
    with pio.load("demo") as model:
        loaded = model.metadata
    assert loaded.memory["weights"] > 0
    assert model.metadata == replace(loaded, memory={"weights": 0, "cache": 0, "buffers": 0})
    assert (model.metadata.context_length, model.metadata.parameters) == (2048, loaded.parameters)
    model.initialize(path="demo")
    assert model.metadata.context_length == 0, "nothing is known of a model that was never loaded"


@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_model_is_not_pickled_but_loaded_again(model, take):
    with pytest.raises(pio.PioError, match=r"load it in each process: pio.load\('.*demo'\)"):
        take(model)


MARKS = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")


def test_a_gap_is_asked_for_with_the_models_own_tokens(model):
    prefix, suffix = "def add(a, b):\n    return ", "\n\nprint(add(2, 3))\n"
    written = model.tokenize(f"{MARKS[0]}{prefix}{MARKS[1]}{suffix}{MARKS[2]}")
    fields = {"max_new_tokens": 5, "temperature": 0, "ignore_eos": True}
    found = model.generate(prefix=prefix, suffix=suffix, **fields)
    assert found.token_ids == model.generate(written, **fields).token_ids
    assert found.usage.prompt_tokens == len(written)
    assert model.generate_text(prefix=prefix, suffix=suffix, **fields) == found.text
    assert "".join(model.stream(prefix=prefix, suffix=suffix, **fields)) == found.text
    alone = model.generate(prefix=prefix, **fields)
    assert alone.usage.prompt_tokens == len(model.tokenize(prefix)) + 3


def test_gaps_that_cannot_be_filled(model, monkeypatch):
    with pytest.raises(pio.ConfigError, match="prompt: found one beside prefix and suffix"):
        model.generate("text", prefix="a", max_new_tokens=1)
    with pytest.raises(pio.ConfigError, match=r"suffix: found one of <\|fim_prefix\|>"):
        model.generate(prefix="a", suffix="b<|fim_middle|>c", max_new_tokens=1)
    with pytest.raises(pio.ConfigError, match="prompt: found a NoneType"):
        model.generate(max_new_tokens=1)
    for name, given in (("tools", TOOLS), ("enable_thinking", False), ("template_variables", {"mood": "glad"})):
        words = (
            f"{'mood' if name == 'template_variables' else name}: only a list of messages .* found prefix and suffix"
        )
        with pytest.raises(pio.ConfigError, match=words):
            model.generate(prefix="a", **{name: given}, max_new_tokens=1)
    for name, other in (("prefix", "suffix"), ("suffix", "prefix")):
        for wrong, found in ((5, "5"), (b"a", "a bytes"), (["a"], "a list")):
            with pytest.raises(pio.ConfigError, match=rf"^{name}: found {found}, expected a str"):
                model.generate(**{name: wrong, other: "b"}, max_new_tokens=1)
    monkeypatch.setattr(type(model), "fill_marks", None)
    with pytest.raises(pio.ConfigError, match="this model was not trained to fill a gap"):
        model.generate(prefix="a", suffix="b", max_new_tokens=1)
    monkeypatch.setattr(type(model), "fill_marks", ("<|no_such_token|>", *MARKS[1:]))
    with pytest.raises(pio.ConfigError, match=r"the tokenizer has no token <\|no_such_token\|>"):
        model.generate(prefix="a", max_new_tokens=1)


def test_what_returns_one_text_refuses_several_answers(model):
    messages = [{"role": "user", "content": "Hi"}]
    calls = (
        lambda **fields: model.generate_text("x", **fields),
        lambda **fields: model.chat_completion(messages, **fields),
        lambda **fields: model.stream("x", **fields),
    )
    for call in calls:
        with pytest.raises(pio.ConfigError, match="has one answer, found n=2"):
            call(n=2, max_new_tokens=1000, ignore_eos=True)
        with pytest.raises(pio.ConfigError, match="has one answer, found n=2"):
            call(params=pio.SamplingParams(n=2, max_new_tokens=1000))
        with pytest.raises(pio.ConfigError, match="has no log probabilities, found logprobs=0"):
            call(logprobs=0, max_new_tokens=1000)
    assert len(model.generate("x", n=2, max_new_tokens=1).samples) == 2


@pytest.mark.parametrize("budget", ["5", 5.0, None, True, 0, -1])
def test_a_budget_is_a_number_of_tokens(model, budget):
    with pytest.raises(pio.ConfigError, match=r"budget is .*a number of tokens was expected"):
        model.fit_messages([{"role": "user", "content": "Hi"}], budget)


@pytest.mark.parametrize("half", ["mixer", "mlp"])
def test_a_block_written_for_an_earlier_version_is_refused(half):
    from pio.models.qwen3_0_6b.plugin import Qwen3_0_6BPlugin

    class Older:
        def __call__(self, x, residual, activations): ...

    class OlderPlugin(Qwen3_0_6BPlugin):
        def build_model(self, config, source, runtime, budget):
            model = super().build_model(config, source, runtime, budget)
            setattr(model.layers[0], half, Older())
            return model

    with pytest.raises(pio.ConfigError, match=r"Older cannot be called with \(x, residual.*source\.workspace\.rooms"):
        plugin = OlderPlugin()
        plugin.initialize("demo")
        plugin.load_model()
