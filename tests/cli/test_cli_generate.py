import json
import re
import shutil
from contextlib import nullcontext

import pytest

import pio as package
from pio.cli import loading
from pio.cli.app import make_app
from pio.ops import compilation

PROMPT = "def add(a, b):\n"
GREEDY = ("-t", 0, "-n", 9)


@pytest.fixture(scope="module")
def model():
    with package.load("demo") as model:
        yield model


def test_text_is_all_there_is_on_standard_output(pio, model):
    ran = pio("generate", "demo", PROMPT, *GREEDY)
    expected = model.generate_text(PROMPT, temperature=0.0, max_new_tokens=9)
    assert (ran.exit_code, ran.stdout, ran.stderr) == (0, expected + "\n", "")


def test_json_holds_the_whole_result(pio, model):
    ran = pio("generate", "demo", PROMPT, "--json", "--seed", 5, "-n", 8, "--logprobs", 2)
    found = json.loads(ran.stdout)
    expected = model.generate(PROMPT, seed=5, max_new_tokens=8, logprobs=2)
    assert found["token_ids"] == expected.token_ids and found["text"] == expected.text
    counts = {"prompt_tokens": len(model.tokenize(PROMPT)), "completion_tokens": 8}
    assert found["usage"] == {**counts, "image_tokens": 0, "cached_tokens": 0}
    assert found["seed"] == 5 and found["finish_reason"] == "length"
    assert (found["model"], found["path"], found["plugin"]) == ("demo", model.path, "qwen3_0_6b")
    assert b"".join(bytes(entry["bytes"]) for entry in found["logprobs"]).decode() == expected.text
    for entry, token in zip(found["logprobs"], expected.logprobs, strict=True):
        assert (entry["token_id"], entry["text"], entry["logprob"]) == token[:3]
        assert [(other["token_id"], other["logprob"]) for other in entry["top"]] == list(token.top)
        assert len(token.top) == 2
    assert found["timings"]["time_to_first_token"] > 0 and found["load_seconds"] > 0


def test_every_sampling_field_arrives(pio, model):
    fields = {
        "max_new_tokens": 11,
        "min_new_tokens": 3,
        "temperature": 0.9,
        "top_k": 30,
        "top_p": 0.8,
        "min_p": 0.01,
        "repetition_penalty": 1.2,
        "presence_penalty": 0.3,
        "frequency_penalty": 0.4,
        "no_repeat_ngram_size": 7,
        "logit_bias": {7: -100.0, 300: 1.5},
        "deadline": 3600.0,
        "seed": 11,
        "stop": ["zzzz", "qqqq"],
        "stop_token_ids": [9, 10],
        "ignore_eos": True,
        "include_stop": True,
        "skip_special_tokens": False,
    }
    options: list[object] = []
    for name, value in fields.items():
        if name == "logit_bias":
            options += [part for token, bias in value.items() for part in ("--logit-bias", f"{token}={bias}")]
        elif name == "skip_special_tokens":
            options.append("--special-tokens")
        elif value is True:
            options.append(f"--{name.replace('_', '-')}")
        elif isinstance(value, list):
            option = "--stop-token-id" if name == "stop_token_ids" else "--stop"
            options += [part for each in value for part in (option, each)]
        else:
            options += [f"--{name.replace('_', '-')}", value]
    seen = {}

    def submit(self, prompt, **given):
        seen.update(given)
        return original(self, prompt, **given)

    original = package.TextModelPlugin.submit
    package.TextModelPlugin.submit = submit
    try:
        ran = pio("generate", "demo", PROMPT, *options)
    finally:
        package.TextModelPlugin.submit = original
    assert ran.exit_code == 0 and seen == fields
    assert ran.stdout == model.generate_text(PROMPT, **fields) + "\n"


def test_an_answer_that_ended_while_the_model_thought(pio, model):
    think, end = (model.tokenize(text)[0] for text in ("<think>", "<|im_end|>"))
    asked = ("generate", "demo", "Add.", "--chat", "-t", 0, "--logit-bias", f"{think}=100")
    ran = pio(*asked, "-n", 4)
    assert ran.exit_code == 0 and "a larger --max-new-tokens, or none, lets it go on" in ran.stderr
    assert ran.stderr.startswith("note: the answer ended inside the model's reasoning, after 4 tokens;")
    ran = pio(*asked, "-n", 4, "--json")
    assert json.loads(ran.stdout)["answered"] is False and "after 4 tokens" in ran.stderr
    assert pio("generate", "demo", "Add.", "-n", 1, "--logit-bias", f"{end}=100").stderr == ""


def test_a_gap(pio, model):
    gap, fields = {"prefix": "def add(a, b):\n    return ", "suffix": "\n\nprint(add(2, 3))"}, ("-t", 0, "-n", 9)
    given = [part for name, text in gap.items() for part in (f"--{name}", text)]
    answer = model.generate_text(**gap, temperature=0, max_new_tokens=9)
    assert pio("generate", "demo", *given, *fields).stdout == answer + "\n" * (not answer.endswith("\n"))
    assert pio("generate", "demo", *given, *fields, "--echo").stdout == f"{gap['prefix']}{answer}{gap['suffix']}\n"
    found = json.loads(pio("generate", "demo", *given[:2], *fields, "--json").stdout)
    assert found["token_ids"] == model.generate(prefix=gap["prefix"], temperature=0, max_new_tokens=9).token_ids


def test_a_long_compilation_is_noted_once(pio, monkeypatch):
    def watch(started, finished=None, loaded=None):
        started("one kernel")
        started("another")
        started("a third")
        return nullcontext()

    assert pio("generate", "demo", PROMPT, *GREEDY).stderr == ""
    monkeypatch.setattr(compilation, "watch", watch)
    assert pio("generate", "demo", PROMPT, *GREEDY).stderr == "", "it is over in less than a second"
    monkeypatch.setattr(loading, "DELAY", -1.0)
    assert pio("generate", "demo", PROMPT, *GREEDY).stderr == "compiling kernels for this machine (once)\n"
    assert pio("generate", "demo", PROMPT, *GREEDY, "--no-progress").stderr == ""


def test_several_answers(pio, model):
    ran = pio("generate", "demo", PROMPT, "--answers", 2, "--seed", 1, "-n", 6)
    first, second = model.generate(PROMPT, n=2, seed=1, max_new_tokens=6).samples
    assert ran.stdout == f"--- 1\n{first.text}\n--- 2\n{second.text}\n"


def test_a_question_goes_through_the_chat_template(pio, model):
    ran = pio("generate", "demo", "Write a function.", "--chat", "--json", "-n", 5, "-t", 0)
    asked = model.apply_chat_template([{"role": "user", "content": "Write a function."}])
    assert json.loads(ran.stdout)["usage"]["prompt_tokens"] == len(model.tokenize(asked))
    echoed = pio("generate", "demo", "Write a function.", "--chat", "--echo", "-n", 5, "-t", 0)
    assert echoed.stdout.startswith("Write a function.\n")


def test_stats_are_one_line_on_standard_error(pio):
    ran = pio("generate", "demo", PROMPT, *GREEDY, "--stats")
    assert ran.stderr.count("\n") == 1 and "+ 9 tokens" in ran.stderr and "tok/s" in ran.stderr


@pytest.mark.parametrize("arguments", [("--verbose", "generate", "demo", "x"), ("generate", "demo", "x", "--verbose")])
def test_verbose_says_what_is_loaded_and_compiled(pio, model, arguments):
    ran = pio(*arguments, "-n", 2, "--threads", 1)
    assert ran.exit_code == 0
    *compiled, found, plugin, memory, kernels = ran.stderr.splitlines()
    assert all(line.startswith(("compiling ", "--device auto runs on the CPU: ")) for line in compiled)
    assert found == f"model: demo is {model.path}"
    assert plugin == "plugin: qwen3_0_6b runs 5.77 M parameters in bfloat16 on 1 thread"
    assert memory.startswith("memory: weights 11.5 MB, cache ") and memory.endswith(", for a context of 2048 tokens")
    assert re.fullmatch(r"kernels: \d+ compiled, \d+ taken from .+", kernels)
    assert "compiled" not in pio("generate", "demo", "x", "-n", 2).stderr


def test_verbose_verify(pio, model):
    assert f"model: demo is {model.path}\n" in pio("verify", "demo", "--verbose").stderr


def test_runtime_options_arrive(pio):
    long = pio("generate", "demo", "x = 1\n" * 40, "--context-length", 32, "-n", 1)
    assert long.exit_code == 1 and "32" in long.stderr
    assert pio("generate", "demo", PROMPT, "--profile", "swift").exit_code == 1
    assert pio("generate", "demo", PROMPT, "--memory-limit", 1000).stderr.startswith("error: the weights")
    one = pio("generate", "demo", PROMPT, *GREEDY, "--threads", 1, "--dtype", "float32", "--profile", "accuracy")
    assert one.exit_code == 0
    read, mapped = (pio("generate", "demo", PROMPT, *GREEDY, flag) for flag in ("--no-mmap", "--mmap"))
    assert read.exit_code == 0 and read.stdout == mapped.stdout


def test_what_was_computed_is_kept_in_a_folder(pio, tmp_path):
    long, flags = PROMPT * 20, ("--prefix-cache-path", tmp_path / "kept", "--prefix-cache-disk", "1GB")
    plain, *kept = (pio("generate", "demo", long, *GREEDY, "--json", *some) for some in ((), flags, flags))
    found = [json.loads(ran.stdout) for ran in (plain, *kept)]
    assert len({answer["text"] for answer in found}) == 1
    assert [answer["usage"]["cached_tokens"] for answer in found][:2] == [0, 0]
    assert found[2]["usage"]["cached_tokens"] > 60
    said = pio("generate", "demo", PROMPT, *GREEDY, *flags, "--verbose").stderr
    assert f"segments: 1, in {tmp_path / 'kept'}" in said


def test_the_prefix_cache_is_switched_off(pio):
    """The answer is the same; nothing can be kept on disk then, and a size is for recurrent layers."""
    long, drawn = PROMPT * 20, ("-n", 4, "--seed", 3, "--answers", 1, "--json")
    found = [pio("generate", "demo", long, *drawn, "--prefix-cache", switch) for switch in ("on", "off")]
    assert len({json.loads(ran.stdout)["text"] for ran in found}) == 1
    with_path = pio("generate", "demo", long, "--prefix-cache", "off", "--prefix-cache-path", "kept")
    assert with_path.exit_code == 1 and "--prefix-cache-path contradicts --prefix-cache off;" in with_path.stderr
    sized = pio("generate", "demo", long, "--prefix-cache", "4GiB")
    assert sized.exit_code == 1 and "--prefix-cache 4GiB cannot be used: it is for the states" in sized.stderr
    asked = pio("chat", "demo", "--prefix-cache", "off", "-n", 2, "--no-think", input="Hi\n")
    assert asked.exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (
            ["demo", "x", "--prefix-cache", "lots"],
            1,
            "--prefix-cache is 'lots': expected on, off, or bytes as a size such as 4GiB",
        ),
        (["demo", "x", "--temperature", "-1"], 1, "--temperature -1"),
        (["demo", "x", "--prefix", "a"], 1, "--prefix and --suffix take the place of a prompt"),
        (["demo", "--suffix", "a", "--chat"], 1, "--prefix and --suffix take the place of a prompt"),
        (["no-such-folder", "x"], 1, "no folder"),
        (["no-such-folder"], 1, "no folder 'no-such-folder'"),
        (["demo", ""], 1, "prompt"),
        (["demo", "x", "--logprobs", "1"], 1, "--json"),
        (["demo", "x", "--literal-messages"], 1, "--chat"),
        (["demo", "x", "--json", "--echo"], 1, "--echo"),
        (["demo", "x", "--logit-bias", "7"], 1, "ID=BIAS"),
        (["demo", "x", "--plugin", "none"], 1, "not installed"),
        (["demo", "x", "--sorcery"], 2, "--sorcery"),
        (["demo", "x", "--top-k", "many"], 2, "top-k"),
    ],
)
def test_mistakes_get_one_line(pio, arguments, code, words):
    ran = pio("generate", *arguments)
    assert ran.exit_code == code and words in ran.stderr and ran.stdout == ""
    if code == 1:
        assert ran.stderr.startswith("error: ") and ran.stderr.count("\n") == 1


def test_another_size_of_an_architecture_is_no_reason_to_warn(pio, model, tmp_path):
    folder = shutil.copytree(model.path, tmp_path / "copy")
    ran = pio("generate", folder, PROMPT, *GREEDY)
    assert (ran.exit_code, ran.stderr) == (0, "")
    told = pio("generate", folder, PROMPT, *GREEDY, "--verbose").stderr
    assert told.startswith("no plugin lists this size of qwen3; qwen3_0_6b runs it\n")


def test_help_and_version(pio):
    assert pio("--version").stdout == f"pio {package.__version__}\n"
    helped = pio("--help").stdout
    for name in ("generate", "chat", "models", "verify", "download", "quantize", "warmup", "doctor", "bench"):
        assert name in helped
    assert "[default: demo]" in " ".join(pio("generate", "--help").stdout.split())


def test_every_option_says_what_it_does():
    import typer.main

    commands = vars(typer.main.get_command(make_app()))["commands"]
    assert len(commands) == 9
    for name, described in commands.items():
        assert described.help, name
        for parameter in described.params:
            assert parameter.help and parameter.help.endswith("."), f"{name} {parameter.name}"


def test_reasoning_that_is_closed(pio, model):
    fields = {"max_new_tokens": 30, "seed": 5, "logit_bias": {3: 100.0}}
    given = ("-n", 30, "--seed", 5, "--logit-bias", "3=100", "--json")
    found = json.loads(pio("generate", "demo", "Add two.", "--chat", "--max-thinking-tokens", 2, *given).stdout)
    expected = model.generate([{"role": "user", "content": "Add two."}], max_thinking_tokens=2, **fields)
    assert found["token_ids"] == expected.token_ids and found["token_ids"][3] == 4
    ran = pio("generate", "demo", PROMPT, "--max-thinking-tokens", 2)
    assert ran.exit_code == 1 and "--max-thinking-tokens 2: the answer to this prompt has no reasoning" in ran.stderr
