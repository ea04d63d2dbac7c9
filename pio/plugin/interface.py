"""The interface of a model plugin, and all of it that does not depend on the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from pio.engine.generation import Generation
from pio.engine.handle import Handle, LogitsHandle, Stream
from pio.engine.request import Owned
from pio.engine.sampling_params import Params, SamplingParams
from pio.engine.stats import Stats
from pio.errors import PioError
from pio.plugin import calls
from pio.plugin.lifecycle import Lifecycle
from pio.plugin.loaded_model import LoadedModel
from pio.plugin.prompts import Marks, Message, Messages, Prompt
from pio.tensor import Tensor

T = TypeVar("T")
Tools = Sequence[Mapping[str, Any]]


class TextModelPlugin(Lifecycle):
    """A language model, ready to be called from any thread once loaded.

    A plugin names its configuration class and builds its model; everything else is here and in ``Lifecycle``.
    ``pio.load`` makes one; as a context manager it gives its memory back at the end.

    Attributes:
        manifest_name: Name of the plugin, which finds its manifest.
        config_class: Reads config.json.
        fill_marks: Tokens before a prefix, a suffix, and what stands between them; None if the model fills no gaps.
        runtime: How the model runs, or will run once loaded.
    """

    fill_marks: ClassVar[Marks | None] = None

    # What it is

    def supports_config(self, config: Mapping[str, Any]) -> bool:
        """Return whether the plugin runs a model with this config.json."""
        if config.get("model_type") not in self.manifest.model_types:
            return False
        try:
            self.config_class.from_checkpoint(dict(config))
        except PioError:
            return False
        return True

    def check_weights(self) -> None:
        """Read all weights and check that they are numbers.

        Raises:
            CheckpointError: One holds NaN or an infinity; the message names it.
        """
        self.loaded.check_weights()

    def stats(self) -> Stats:
        """Return what the model has done since it was loaded, and what runs now; no prompt and no answer is in it."""
        return self.loaded.manager.stats()

    # Text

    def tokenize(self, text: str, *, literal: bool = False) -> list[int]:
        """Return the token ids of a text; control tokens in it count as such, or with ``literal`` stay letters.

        Raises:
            ConfigError: The folder has no tokenizer.
        """
        return self.loaded.prompts.tokenizer.encode(text, literal=literal)

    def detokenize(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, special tokens included.

        Raises:
            ConfigError: The folder has no tokenizer, or an id is outside its vocabulary.
        """
        return self.loaded.prompts.tokenizer.decode(ids)

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that a token adds to a text; they may be part of a character.

        Raises:
            ConfigError: The folder has no tokenizer, or the id is outside its vocabulary.
        """
        return self.loaded.prompts.token_bytes(token_id)

    def apply_chat_template(
        self,
        messages: Messages,
        *,
        tools: Tools | None = None,
        add_generation_prompt: bool | None = None,
        template_variables: Mapping[str, Any] | None = None,
        **variables: Any,
    ) -> str:
        """Return the prompt for a conversation, as the checkpoint's own template writes it.

        Args:
            messages: Dicts with ``role`` and ``content``.
            tools: JSON schemas of functions that the model may call.
            add_generation_prompt: End with the beginning of an answer; by default unless the last message is continued.
            template_variables: What the template knows besides, such as ``enable_thinking``.
            **variables: The same, one by one; and ``continue_final_message=True``, to leave the last message open.

        Raises:
            ConfigError: The folder has no chat template, it has no place for tools, or a message is malformed.
            CheckpointError: The template is broken or does what a template must not.
        """
        named = {"tools": tools, "add_generation_prompt": add_generation_prompt, **variables}
        return self.loaded.prompts.render(messages, **calls.template_variables(template_variables, **named))

    def fit_messages(
        self,
        messages: Messages,
        budget: int,
        *,
        template_variables: Mapping[str, Any] | None = None,
        **variables: Any,
    ) -> list[Message]:
        """Return the conversation without its oldest turns, so that its prompt has at most ``budget`` tokens.

        System messages stay, and so does the last turn. Variables as in ``apply_chat_template``.

        Raises:
            CapacityError: What must stay is longer already.
            ConfigError: The folder has no chat template, or a message is malformed.
        """
        given = calls.template_variables(template_variables, **variables)
        return self.loaded.prompts.fit(messages, budget, **given)

    # Answers

    def submit(self, prompt: Prompt | None = None, params: Params | None = None, **fields: Any) -> Handle:
        """Queue a prompt and return at once; see ``generate`` for the arguments."""
        owned = Owned()
        try:
            return self._submit(owned, prompt, params, **fields)
        except BaseException:
            owned.cancel()
            raise

    def _submit(
        self,
        owned: Owned,
        prompt: Prompt | None,
        params: Params | None,
        text_only: str | None = None,
        /,
        *,
        prefix: str | None = None,
        suffix: str | None = None,
        tools: Tools | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
        enable_thinking: bool | None = None,
        continue_final_message: bool | str | None = None,
        template_variables: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Handle:
        """Queue a prompt for whoever owns its request; what returns nothing but ``text_only`` refuses the rest."""
        named = {"enable_thinking": enable_thinking, "continue_final_message": continue_final_message}
        variables = calls.template_variables(template_variables, tools=tools, tool_choice=tool_choice, **named)

        def start(loaded: LoadedModel) -> Handle:
            merged = SamplingParams.merge(loaded.generation_config, params, **fields)
            if text_only is not None:
                calls.check_text_only(merged, text_only)
            if prefix is not None or suffix is not None:
                encoded = loaded.prompts.fill(prompt, prefix, suffix, self.fill_marks, **variables)
            else:
                encoded = loaded.prompts.encode(prompt, True, **variables)
            if text_only is not None:
                calls.check_no_calls(encoded, text_only)
            return loaded.manager.submit(encoded, merged, owned=owned)

        return self._start(start)

    def generate(self, prompt: Prompt | None = None, params: Params | None = None, **fields: Any) -> Generation:
        """Answer a prompt.

        Args:
            prompt: Text, token ids, or a list of messages. Models for code also take ``prefix`` and ``suffix`` in its
                place, and answer with what stands between them. Models that see take ``{"text": …, "image": …}`` too,
                and messages with pictures and videos.
            params: How to choose tokens and when to stop, as ``SamplingParams`` or a dict of its fields; the
                checkpoint's own defaults hold for the rest.
            **fields: Single sampling fields, which win over ``params``; and for messages ``tools``, ``tool_choice``
                ("auto", "none", "required" or ``{"name": …}``), ``enable_thinking``, ``continue_final_message`` and
                ``template_variables``.

        Returns:
            The text, its token ids, why it ended, and what it took. For messages, ``text`` is the answer,
            ``reasoning`` what the model thought before it, and ``tool_calls`` what it wants to know of the tools. With
            ``response_format``, ``parsed`` is what it holds.

        Raises:
            ConfigError: A field is unknown or out of range, the prompt cannot be read, or ``response_format`` asks for
                what no answer can be held to.
            MediaError: A picture or a video cannot be read.
            CapacityError: The prompt does not fit into the context or the cache.
            CancelledError: The model was closed meanwhile.
        """
        owned = Owned()
        try:
            return self._submit(owned, prompt, params, **fields).result()
        except BaseException:
            owned.cancel()
            raise

    def generate_text(self, prompt: Prompt | None = None, params: Params | None = None, **fields: Any) -> str:
        """Return the text of ``generate``, of one answer.

        Raises:
            ConfigError: As ``generate``, or ``n`` asks for several, or ``logprobs`` for what a text has no room for.
        """
        return self._generate_one(prompt, params, **fields).text

    def _generate_one(self, prompt: Prompt | None, params: Params | None, **fields: Any) -> Generation:
        owned = Owned()
        try:
            return self._submit(owned, prompt, params, calls.TEXT_ALONE, **fields).result()
        except BaseException:
            owned.cancel()
            raise

    def stream(self, prompt: Prompt | None = None, params: Params | None = None, **fields: Any) -> Stream[str]:
        """Yield the answer as it comes, in whole characters; reasoning comes with its tags.

        Closing the iterator, or dropping it, cancels the request. Arguments and errors as ``generate_text``.
        """
        owned = Owned()
        try:
            return iter(self._submit(owned, prompt, params, "a stream of text", **fields))
        except BaseException:
            owned.cancel()
            raise

    def chat_completion(self, messages: Messages, params: Params | None = None, **fields: Any) -> str:
        """Return the one answer to a conversation, without the reasoning. Arguments and errors as ``generate_text``.

        Raises:
            UnfinishedAnswerError: The answer ended inside the reasoning.
        """
        calls.check_conversation(messages)
        return calls.answer_text(self._generate_one(messages, params, **fields))

    def infer(self, x: Prompt, params: Params | None = None, **fields: Any) -> Generation:
        """Answer one input of any kind the model takes; as ``generate``."""
        return self.generate(x, params, **fields)

    def infer_batch(self, xs: Sequence[Prompt], params: Params | None = None, **fields: Any) -> list[Generation]:
        """Answer several inputs together; each answer is the one it gets alone."""
        owned = Owned()
        try:
            handles: list[Handle] = []
            for x in calls.check_prompts(xs):
                with calls.prompt_named(len(handles)):
                    handles.append(self._submit(owned, x, params, **fields))
            return [handle.result() for handle in handles]
        except BaseException:
            owned.cancel()
            raise

    def logits(self, prompt: Prompt) -> Tensor:
        """Return the logits at every position of a prompt.

        Returns:
            float32 (tokens, vocabulary); row i predicts token i + 1.

        Raises:
            OutOfMemoryError: They do not fit into ``memory_limit`` or the machine. They count as long as they live.
        """
        owned = Owned()
        try:

            def start(loaded: LoadedModel) -> LogitsHandle:
                return loaded.manager.submit_logits(loaded.prompts.encode(prompt), owned=owned)

            return self._start(start).result()
        except BaseException:
            owned.cancel()
            raise

    def _start(self, start: Callable[[LoadedModel], T]) -> T:
        """Start a request; where ``update`` replaces the model meanwhile, on the new one."""
        while True:
            loaded = self.loaded
            try:
                return start(loaded)
            except PioError:
                if loaded is self._loaded:
                    raise
