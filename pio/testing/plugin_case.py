"""A ready-made test class for authors of model plugins: derive, name the plugin, describe a tiny model, run pytest.

from pio.testing.plugin_case import PluginCase


class TestMyModel(PluginCase):
    plugin = "my_model"
    config = {"model_type": "my_model", "vocab_size": 4099, "hidden_size": 24, ...}
"""

from __future__ import annotations

import copy
import gc
import tempfile
from collections.abc import Mapping
from itertools import count, islice
from pathlib import Path
from typing import Any, ClassVar

from pio.dtypes import int32
from pio.engine.prefix_writes import TOKEN
from pio.errors import CheckpointError, ConfigError, PioError, UnfinishedAnswerError
from pio.loading.safetensors import SafetensorsFile, write_safetensors
from pio.memory.allocation import allocated_bytes
from pio.plugin import TextModelPlugin, registry
from pio.plugin.loader import load
from pio.plugin.manifest import import_object
from pio.plugin.quantizer import quantize
from pio.tensor import Tensor
from pio.testing.check_plugin import check_commits, check_plugin, check_steps
from pio.testing.compare import bits
from pio.testing.random_checkpoint import write_random_checkpoint
from pio.text.encoded_prompt import EncodedPrompt, PromptEmbeddings

MESSAGES = [{"role": "user", "content": "Write a function that adds two numbers."}]
TEXT = "def add(left, right):\n    return left + right  # ümläut, 日本語\n"


class PluginCase:
    """Tests that every plugin passes, on a tiny model with random weights.

    Attributes:
        plugin: The plugin's name.
        config: config.json of a tiny model. Choose pairwise different sizes; a vocabulary of at least 4,096 tokens
            has room for the demo model's tokenizer, which the tests borrow.
        options: Options of ``pio.load`` for every test.
    """

    plugin: ClassVar[str]
    config: ClassVar[Mapping[str, Any]]
    options: ClassVar[Mapping[str, Any]] = {}

    _temporary: ClassVar[tempfile.TemporaryDirectory[str]]
    folder: ClassVar[Path]
    model: ClassVar[TextModelPlugin]

    @classmethod
    def setup_class(cls) -> None:
        """Write the tiny model and load it once for all tests of the class."""
        cls._temporary = tempfile.TemporaryDirectory()
        cls.folder = write_random_checkpoint(Path(cls._temporary.name) / "tiny", cls.config, plugin=cls.plugin)
        cls.model = cls.load()

    @classmethod
    def teardown_class(cls) -> None:
        """Give everything back."""
        cls.model.cleanup()
        cls._temporary.cleanup()

    @classmethod
    def load(cls, folder: Path | None = None, **options: Any) -> TextModelPlugin:
        """Load the tiny model, or another folder, with the plugin under test."""
        return load(folder or cls.folder, plugin=cls.plugin, progress=False, **{**cls.options, **options})

    @classmethod
    def create(cls, **options: Any) -> TextModelPlugin:
        """Call the plugin's factory."""
        return import_object(registry.manifests()[cls.plugin].factory)(**options)

    @property
    def decoder_config(self) -> Mapping[str, Any]:
        """Fields of the decoder, which models that see have apart."""
        return self.config.get("text_config", self.config)

    def prompt(self, length: int = 37) -> list[int]:
        """Return token ids all over the vocabulary, none of which stands for a picture."""
        media, vocabulary = self.model.loaded.prompts.media, self.decoder_config["vocab_size"]
        marks = media.mark_ids if media else ()
        ids = ((101 + 997 * i) % vocabulary for i in count())
        return list(islice((token for token in ids if token not in marks), length))

    def greedy(self, model: TextModelPlugin, ids: list[int], count: int = 12) -> list[int]:
        """Return the likeliest continuation."""
        return list(model.generate(ids, temperature=0.0, max_new_tokens=count, ignore_eos=True).token_ids)

    def test_complies(self) -> None:
        """``check_plugin`` finds nothing."""
        findings = check_plugin(self.plugin)
        assert not findings, "\n".join(map(str, findings))

    def test_initialise(self) -> None:
        """A plugin starts empty, takes its options, and refuses what it does not know by name."""
        made = self.create()
        assert made.metadata.memory == {"weights": 0, "cache": 0, "buffers": 0}, (
            f"an empty plugin holds {made.metadata.memory}"
        )
        assert made.initialize(self.folder, threads=1) is True
        assert made.runtime.threads == 1, "initialize(threads=1) was ignored"
        expect(ConfigError, "no_such_option", lambda: made.initialize(no_such_option=1))
        expect(PioError, "load", lambda: made.generate_text("x"))

    def test_supports_config(self) -> None:
        """The tiny model's config is the plugin's own; a damaged one is not."""
        assert self.model.supports_config(self.config)
        damaged = {**self.decoder_config, "num_hidden_layers": -1}
        nested = {**self.config, "text_config": damaged}
        assert not self.model.supports_config(nested if "text_config" in self.config else damaged)

    def test_load(self) -> None:
        """Loading through the factory gives the model that ``pio.load`` gives."""
        made = self.create(path=self.folder, progress=False, **self.options)
        with made.load_model() as model:
            assert model is made
            assert self.greedy(model, self.prompt()) == self.greedy(self.model, self.prompt())

    def test_metadata(self) -> None:
        """What a loaded plugin says about itself is what the files hold."""
        found = self.model.metadata
        stored = SafetensorsFile(self.folder / "model.safetensors")
        elements = sum(stored.tensor(name).size for name in stored.names)
        assert (found.name, found.model_type) == (self.plugin, self.config["model_type"])
        assert found.parameters == elements, f"metadata says {found.parameters} parameters, the file holds {elements}"
        assert found.vocab_size == self.decoder_config["vocab_size"]
        vectors = sum(tensor.nbytes for name in stored.names if (tensor := stored.tensor(name)).ndim == 1)
        assert stored.nbytes <= found.memory["weights"] <= stored.nbytes + vectors  # some are held in float32
        assert found.memory["cache"] > 0 and found.memory["buffers"] > 0

    def test_every_tensor_is_used(self) -> None:
        """A tensor too many, too few or of another shape is an error that names it."""
        file = SafetensorsFile(self.folder / "model.safetensors")
        tensors = {name: file.tensor(name) for name in file.names}
        first = max(tensors)
        wrong_shape = Tensor.zeros((*tensors[first].shape, 3), tensors[first].dtype)
        for damaged, named in (
            ({**tensors, "stray.weight": Tensor.zeros((3,))}, "stray.weight"),
            ({name: t for name, t in tensors.items() if name != first}, first),
            ({**tensors, first: wrong_shape}, first),
        ):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                (folder / "config.json").write_bytes((self.folder / "config.json").read_bytes())
                write_safetensors(folder / "model.safetensors", damaged)
                expect(CheckpointError, named, lambda at=folder: self.load(at))

    def test_recorded_steps(self) -> None:
        """A step that was recorded gives the bits of its Python on other tokens, pasts and sequences, in every form."""
        forms: list[dict[str, Any]] = [{}, {"quantize": "int4"}, {"activation_dtype": "bfloat16"}]
        for options in forms:
            with self.load(**options) as model:
                findings = [*check_steps(model), *check_commits(model)]
                assert not findings, f"with {options}: {findings[0]}"

    def test_infer(self) -> None:
        """One input gives an answer of the length asked for; the same again, the same answer."""
        fields: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": 9, "ignore_eos": True}
        first, second = (self.model.infer(self.prompt(), **fields) for _ in range(2))
        assert len(first.token_ids) == 9 and first.finish_reason == "length"
        assert first.token_ids == second.token_ids
        assert first.usage.prompt_tokens == len(self.prompt())

    def test_infer_batch(self) -> None:
        """Every answer of a batch is the one that its prompt gets alone."""
        prompts = [self.prompt(n) for n in (1, 2, 19, 40)]
        together = self.model.infer_batch(prompts, temperature=0.0, max_new_tokens=12, ignore_eos=True)
        assert [list(r.token_ids) for r in together] == [self.greedy(self.model, ids) for ids in prompts]

    def test_prompt_in_pieces(self) -> None:
        """Logits do not depend on how a prompt is cut: whole, in odd chunks or token by token, the same bits."""
        ids = self.prompt(71)
        whole = bits(self.model.logits(ids))
        assert len(whole) == 4 * len(ids) * self.decoder_config["vocab_size"]
        for chunk in (1, 7):
            with self.load(prefill_chunk=chunk) as model:
                assert bits(model.logits(ids)) == whole, f"other bits with prefill_chunk={chunk}"

    def test_prompt_embeddings(self) -> None:
        """Rows of the model's own table in the place of its tokens give the bits that the tokens give."""
        ids, decoder = self.prompt(29), self.model.loaded.model
        first, last = 7, 19
        hidden = [*ids[:first], *[ids[0]] * (last - first), *ids[last:]]
        rows = Tensor.zeros((last - first, decoder.hidden_size or 1))
        if decoder.hidden_size == 0:  # a model that takes none says so
            refused = EncodedPrompt(hidden, embeddings=[PromptEmbeddings(first, rows)])
            return expect(ConfigError, "embeddings", lambda: self.model.logits(refused))
        decoder.embed_tokens(Tensor.from_list(ids[first:last], int32), rows)
        chunks: list[dict[str, Any]] = [{}, {"prefill_chunk": 5}]
        for options in chunks:
            with self.load(**options) as model:
                given = EncodedPrompt(hidden, embeddings=[PromptEmbeddings(first, rows)])
                assert bits(model.logits(given)) == bits(model.logits(ids)), (
                    "embeddings that come with a prompt are not what the model reads: does its decoder look tokens up "
                    "without Decoder.embed?"
                )
                assert bits(model.logits(hidden)) != bits(model.logits(ids)), "these tokens make no difference"

    def test_quantized(self) -> None:
        """A quantized folder gives the bits of quantizing while loading, however a prompt is cut."""
        ids = self.prompt(37)
        with self.load(quantize="int4") as model:
            whole, answer = bits(model.logits(ids)), self.greedy(model, ids)
        with tempfile.TemporaryDirectory() as name:
            made = quantize(self.folder, Path(name) / "made", format="int4", plugin=self.plugin)
            with self.load(made, prefill_chunk=5) as model:
                assert bits(model.logits(ids)) == whole, "other bits from the quantized folder"
                assert self.greedy(model, ids) == answer

    def test_prefix_cache(self) -> None:
        """What was computed before is found again, and changes no bit of an answer."""
        ids = self.prompt(71)
        fields: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": 6, "ignore_eos": True, "logprobs": 20}
        with self.load(prefix_cache=False) as model:
            cold, slots = model.generate(ids, **fields), model.loaded.cache.state_slots
        for chunk in (5, 64):
            with self.load(prefill_chunk=chunk) as model:
                found, cache = [model.generate(ids, **fields) for _ in range(2)], model.loaded.cache
            assert [answer.logprobs for answer in found] == [cold.logprobs] * 2, "a hit changes bits"
            most = (len(ids) - 1) // cache.block_size * cache.block_size
            if cache.state_bytes and cache.state_slots == slots:  # there is no room to keep states in
                most = 0
            assert [answer.usage.cached_tokens for answer in found] == [0, most]

    def test_prefix_cache_on_disk(self) -> None:
        """What was computed before a restart is found again, and changes no bit."""
        ids, cache = self.prompt(71), self.model.loaded.cache
        fields: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": 6, "ignore_eos": True, "logprobs": 20}
        with self.load(prefix_cache=False) as model:
            cold, slots = model.generate(ids, **fields), model.loaded.cache.state_slots
        wanted = ["block_memory", *(["state_memory"] if cache.state_bytes else [])]
        room = not cache.state_bytes or cache.state_slots > slots  # to keep states in
        with tempfile.TemporaryDirectory() as name:
            kept = Path(name) / "kept"
            if not room or not all(hasattr(cache, offered) for offered in wanted):
                expect(ConfigError, "prefix_cache_path cannot be used", lambda: self.load(prefix_cache_path=kept))
                return
            most = (len(ids) - 1) // cache.block_size * cache.block_size
            for cached in (0, most if cache.state_bytes <= most * TOKEN else 0):
                with self.load(prefix_cache_path=kept) as model:
                    found = model.generate(ids, **fields)
                assert found.logprobs == cold.logprobs, "what is read from disk changes bits"
                assert found.usage.cached_tokens == cached

    def test_decoding_agrees_with_reading(self) -> None:
        """What is generated token by token is what the logits of the whole text say."""
        ids = self.prompt()
        answer = self.greedy(self.model, ids)
        rows = self.model.logits(ids + answer).tolist()
        found = [max(range(len(row)), key=row.__getitem__) for row in rows[len(ids) - 1 : -1]]
        assert found == answer

    def test_tokenize(self) -> None:
        """Text survives the way to tokens and back."""
        ids = self.model.tokenize(TEXT)
        assert ids and self.model.detokenize(ids) == TEXT

    def test_generate(self) -> None:
        """Text in, text out; streaming gives the same; a seed repeats; an unknown field is refused."""
        fields: dict[str, Any] = {"max_new_tokens": 15, "seed": 5, "temperature": 1.0}
        text = self.model.generate_text(TEXT, **fields)
        assert isinstance(text, str)
        assert "".join(self.model.stream(TEXT, **fields)) == text == self.model.generate(TEXT, **fields).text
        expect(ConfigError, "no_such_field", lambda: self.model.generate(TEXT, no_such_field=1))
        expect(ConfigError, "temperature", lambda: self.model.generate(TEXT, temperature=-1))

    def test_chat(self) -> None:
        """A conversation goes through the checkpoint's own template."""
        prompt = self.model.apply_chat_template(MESSAGES)
        assert MESSAGES[0]["content"] in prompt
        before = copy.deepcopy(MESSAGES)
        fields: dict[str, Any] = {"max_new_tokens": 8, "temperature": 0.0}
        try:
            answer = self.model.chat_completion(MESSAGES, **fields)
        except UnfinishedAnswerError:  # a model may think for longer than that
            answer = self.model.generate_text(MESSAGES, **fields)
        assert isinstance(answer, str) and before == MESSAGES
        expect(ConfigError, "messages", lambda: self.model.chat_completion("hello"))  # type: ignore[arg-type]

    def test_cleanup(self) -> None:
        """Cleaning up gives every byte back, may be repeated, and leaves a plugin that says what is missing."""
        self.load().cleanup()  # whatever is made once for the process, such as compiled kernels, is there now
        gc.collect()
        before = allocated_bytes()
        model = self.load()
        assert allocated_bytes() > before
        assert len(self.greedy(model, self.prompt())) == 12
        assert model.cleanup() is True and model.cleanup() is True
        gc.collect()
        assert allocated_bytes() == before, f"{allocated_bytes() - before} bytes were not given back"
        expect(PioError, "load", lambda: model.generate(self.prompt()))


def expect(error_type: type[PioError], words: str, act: Any) -> None:
    """Raise an AssertionError unless act raises that error with these words in its message."""
    try:
        act()
    except error_type as error:
        assert words in str(error), f"expected {words!r} in the message: {error}"
        return
    raise AssertionError(f"expected a {error_type.__name__} with {words!r}; nothing was raised")
