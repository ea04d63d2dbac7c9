"""A ready-made test class for authors of plugins that see: as ``plugin_case``, with pictures in prompts.

from pio.testing.media_case import MediaPluginCase


class TestMyModel(MediaPluginCase):
    plugin = "my_model"
    config = {"model_type": "my_model", "text_config": {"vocab_size": 4101, ...}, "vision_config": {...},
              "image_token_id": 4096, ...}
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from pio.errors import ConfigError, MediaError
from pio.plugin import TextModelPlugin
from pio.plugin.media_processor import MediaProcessor
from pio.plugin.quantizer import quantize
from pio.tensor import Tensor
from pio.testing.compare import bits
from pio.testing.plugin_case import PluginCase, expect

ANSWER = 8  # tokens


class MediaPluginCase(PluginCase):
    """Tests that every plugin passes whose models see, on a tiny one with random weights.

    Marks of pictures are tokens right behind the 4,096 of the demo model's tokenizer.

    Attributes:
        sizes: Height and width of pictures, pairwise different, none of which fits the tower's patches.
    """

    sizes: ClassVar[tuple[tuple[int, int], ...]] = ((53, 75), (31, 18), (20, 97))

    @property
    def media(self) -> MediaProcessor:
        """What reads pictures for the tiny model."""
        media = self.model.loaded.prompts.media
        assert media is not None, "the plugin has no media_processor; without one, derive from PluginCase"
        return media

    def picture(self, number: int = 0, seed: int = 0) -> Tensor:
        """Return a picture of noise, uint8 (height, width, 3); another seed gives another one of its size."""
        height, width = self.sizes[number % len(self.sizes)]
        pixels = bytearray(random.Random(f"{number} {seed}").randbytes(height * width * 3))
        return Tensor.from_buffer(pixels, "uint8").reshape(height, width, 3)

    def asked(self, numbers: Iterable[int] = (0,), tokens: int = 5, seed: int = 0) -> dict[str, Any]:
        """Return a prompt with pictures, and some tokens of text before, between and behind them."""
        numbers, mark, ids = list(numbers), self.media.mark_ids[0], self.prompt(tokens * 9)
        text = ids[:tokens]
        for place in range(1, len(numbers) + 1):
            text += [mark, *ids[place * tokens : (place + 1) * tokens]]
        return {"text": text, "images": [self.picture(number, seed) for number in numbers]}

    def answer(self, model: TextModelPlugin, prompt: Any) -> list[int]:
        """Return the likeliest tokens behind a prompt."""
        return model.generate(prompt, temperature=0.0, max_new_tokens=ANSWER, ignore_eos=True).token_ids

    def test_modalities(self) -> None:
        """The plugin says that it takes pictures, and what its processor takes."""
        assert self.model.metadata.modalities[0] == "text"
        assert {*self.model.metadata.modalities[1:]} == {*self.media.modalities}
        assert "image" in self.media.modalities

    def test_pictures_count(self) -> None:
        """Usage says which tokens stand for pictures; other pixels give other logits, and the same ones the same."""
        prompt = self.asked([0, 1])
        answer = self.model.generate(prompt, max_new_tokens=1)
        seen = answer.usage.image_tokens
        assert seen == answer.usage.prompt_tokens - (len(prompt["text"]) - 2) > 2
        several = self.model.generate(prompt, max_new_tokens=2, n=2, ignore_eos=True)
        assert (several.usage.image_tokens, several.usage.completion_tokens) == (seen, 4)
        assert [sample.usage.image_tokens for sample in several.samples] == [seen, seen]
        assert self.model.generate(self.prompt(5), max_new_tokens=1).usage.image_tokens == 0
        first = bits(self.model.logits(prompt))
        assert bits(self.model.logits(self.asked([0, 1]))) == first, "other bits for the same pictures"
        assert bits(self.model.logits(self.asked([0, 1], seed=1))) != first, "the pixels make no difference"

    def test_pictures_in_pieces(self) -> None:
        """Logits do not depend on where a prompt is cut, also in the middle of a picture; nor does the answer."""
        prompt = self.asked([0, 1, 2])
        whole, answer = bits(self.model.logits(prompt)), self.answer(self.model, prompt)
        for chunk in (1, 7):
            with self.load(prefill_chunk=chunk) as model:
                assert bits(model.logits(prompt)) == whole, f"other bits with prefill_chunk={chunk}"
                assert self.answer(model, prompt) == answer

    def test_pictures_in_a_batch(self) -> None:
        """Beside text and other pictures, every answer is the one that its prompt gets alone."""
        prompts: list[Any] = [self.asked([1]), self.prompt(19), self.asked([2, 0, 2]), self.asked([0]), self.prompt(1)]
        alone = [self.answer(self.model, prompt) for prompt in prompts]
        options: list[dict[str, Any]] = [{"media_cache": 0}, {"media_cache": 0, "prefill_chunk": 5}]
        for given in options:
            with self.load(**given) as model:
                together = model.infer_batch(prompts, temperature=0.0, max_new_tokens=ANSWER, ignore_eos=True)
            assert [answer.token_ids for answer in together] == alone, f"other answers with {given}"

    def test_decoding_behind_a_picture(self) -> None:
        """What is generated token by token is what the logits of the whole text say."""
        prompt = self.asked([0, 2])
        answer = self.answer(self.model, prompt)
        rows = self.model.logits({**prompt, "text": [*prompt["text"], *answer]}).tolist()[-len(answer) - 1 : -1]
        marks = self.media.mark_ids
        found = [max((i for i in range(len(row)) if i not in marks), key=row.__getitem__) for row in rows]
        assert found == answer

    def test_marks_and_pictures_must_match(self) -> None:
        """A picture too many or too few is an error, and so is one that cannot be read; others go on."""
        prompt = self.asked([0, 1])
        one = prompt["images"][:1]
        expect(ConfigError, "mark", lambda: self.model.generate({**prompt, "images": one}))
        expect(ConfigError, "mark", lambda: self.model.generate({**prompt, "images": [*prompt["images"], *one]}))
        expect(ConfigError, "mark", lambda: self.model.generate(prompt["text"]))
        expect(MediaError, "image", lambda: self.model.generate({**prompt, "images": [*one, b"no picture"]}))
        assert len(self.answer(self.model, prompt)) == ANSWER

    def test_a_second_question_does_not_encode_again(self) -> None:
        """A picture is encoded once for all questions about it, as long as it is kept."""
        first, second = self.asked([0, 1], seed=7), self.asked([1, 0], tokens=3, seed=7)
        with self.load() as model:
            self.answer(model, first)
            assert model.stats().encoded_media == 2
            answer = self.answer(model, second)
            assert model.stats().encoded_media == 2, "the same pictures were encoded again"
        with self.load(media_cache=0) as model:
            assert self.answer(model, second) == answer, "other tokens for a picture that was kept"

    def test_prefixes_with_pictures(self) -> None:
        """Of a prompt with other pictures the cache has what stands before them, and of the same one all of it."""
        before = 40
        prompts = [self.asked([0, 1], tokens=before, seed=seed) for seed in (3, 4, 3)]
        fields: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": ANSWER, "ignore_eos": True, "logprobs": 20}
        with self.load(prefix_cache=False) as model:
            cold = [model.generate(prompt, **fields) for prompt in prompts]
        with self.load(prefill_chunk=29) as model:
            found, cache = [model.generate(prompt, **fields) for prompt in prompts], model.loaded.cache
        assert [answer.logprobs for answer in found] == [answer.logprobs for answer in cold], "a hit changes bits"
        if not cache.state_bytes:  # else it is found as far as states are kept
            whole = (found[0].usage.prompt_tokens - 1) // cache.block_size
            expected = [blocks * cache.block_size for blocks in (0, before // cache.block_size, whole)]
            assert [answer.usage.cached_tokens for answer in found] == expected
            with tempfile.TemporaryDirectory() as name:
                for cached in (expected[0], expected[2]):
                    with self.load(prefix_cache_path=Path(name) / "kept") as model:
                        kept = model.generate(prompts[0], **fields)
                    assert kept.logprobs == cold[0].logprobs, "what is read from disk changes bits"
                    assert kept.usage.cached_tokens == cached

    def test_marks_are_never_sampled(self) -> None:
        """However likely they are."""
        marks = self.media.mark_ids
        bias = dict.fromkeys(marks, 100.0)
        answer = self.model.generate(self.asked(), logit_bias=bias, max_new_tokens=ANSWER, ignore_eos=True, seed=1)
        assert not {*marks} & {*answer.token_ids}

    def test_text_that_looks_like_a_picture(self) -> None:
        """Marks that a user writes stay text, beside a picture too."""
        words = "".join(sorted(self.media.marks))
        for parts in ([], [{"type": "image", "image": self.picture()}]):
            message = {"role": "user", "content": [*parts, {"type": "text", "text": words}]}
            found = self.model.loaded.prompts.encode([message])
            assert len(found.media) == len(parts)
            tokens = sum(placed.tokens for placed in found.media)
            assert list(found.token_ids).count(self.media.mark_ids[0]) == tokens
        plain = self.model.generate_text([{"role": "user", "content": words}], max_new_tokens=2)
        assert isinstance(plain, str)

    def test_pictures_quantized(self) -> None:
        """A quantized folder sees what quantizing while loading sees."""
        prompt = self.asked([0, 1])
        with self.load(quantize="int8") as model:
            whole = bits(model.logits(prompt))
        with tempfile.TemporaryDirectory() as name:
            made = quantize(self.folder, Path(name) / "made", format="int8", plugin=self.plugin)
            with self.load(made, prefill_chunk=5) as model:
                assert bits(model.logits(prompt)) == whole, "other bits from the quantized folder"
