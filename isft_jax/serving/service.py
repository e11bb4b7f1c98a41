"""Answers chat requests one after another, and remembers the conversations."""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from isft_jax.inference.chat_model import ChatModel, Prompt
from isft_jax.inference.sampling import Sampling
from isft_jax.serving.conversations import Conversations, Match
from isft_jax.serving.prompts import PromptEncoder, Tokens
from isft_jax.serving.request import ApiError, ChatRequest
from isft_jax.serving.sampler import Completion, Interrupted, Settings, sample


class Job(NamedTuple):
  """A request that is ready to be answered.

  Attributes:
    request: the request.
    match: the conversation that it continues, or None.
    prompt: ids before the replies.
    tokens: the same ids, with their authors.
    settings: how the replies are sampled.
  """

  request: ChatRequest
  match: Match | None
  prompt: Prompt
  tokens: Tokens
  settings: Settings


class ChatService:
  """A model that answers requests.

  All methods are called in the thread of the event loop. Replies are sampled in
  one other thread, in the order of their requests.
  """

  def __init__(
    self,
    chat_model: ChatModel,
    encoder: PromptEncoder,
    conversations: Conversations,
    defaults: Mapping[str, Any],
    stop_texts: Sequence[str],
    seed: int,
    max_context: int,
    renew: Callable[[], ChatModel | None] = lambda: None,
  ) -> None:
    """Starts the thread.

    Args:
      chat_model: the model.
      encoder: encoder of its prompts.
      conversations: where the conversations are remembered.
      defaults: values of `chat_model.SETTINGS` for requests without them.
      stop_texts: texts that end every reply.
      seed: seed of the seeds of requests without one.
      max_context: maximum tokens of a prompt and its reply.
      renew: called before each request is answered; returns a model with the
        same tokenizer and template that takes the place of the model, or None.
    """
    self._chat_model = chat_model
    self._encoder = encoder
    self._conversations = conversations
    self._defaults = defaults
    self._stop_texts = stop_texts
    self._rng = np.random.default_rng(seed)
    self._max_context = max_context
    self._renew = renew
    self._thread = ThreadPoolExecutor(max_workers=1)
    self._is_closing = threading.Event()

  def prepare(self, request: ChatRequest) -> Job:
    """Encodes the prompt of a request.

    Raises:
      ApiError: the template refuses the messages, or they are too long.
    """
    match = self._conversations.match(request.messages)
    known = match.known if match else None
    prompt, tokens = self._encoder.encode(request.messages, known)
    settings = self._settings(request, len(tokens.ids))
    return Job(request, match, prompt, tokens, settings)

  async def run(
    self, job: Job, on_text: Callable[[int, str], None] | None = None
  ) -> list[Completion]:
    """Samples the replies to a request when those before it are complete.

    If the task is cancelled, its replies end, and nothing is remembered.

    Args:
      job: the request.
      on_text: called with (index of a reply, its text so far).

    Raises:
      Interrupted: `close` was called.
    """
    loop = asyncio.get_running_loop()
    has_left = threading.Event()

    def show(index: int, text: str) -> bool:
      if has_left.is_set() or self._is_closing.is_set():
        return True
      if on_text:
        loop.call_soon_threadsafe(on_text, index, text)
      return False

    def work() -> list[Completion]:
      if has_left.is_set() or self._is_closing.is_set():
        raise Interrupted
      self._chat_model = self._renew() or self._chat_model
      return sample(
        self._chat_model, job.prompt, job.request.number, job.settings, show
      )

    try:
      completions = await loop.run_in_executor(self._thread, work)
    finally:
      has_left.set()
    self._conversations.add(
      job.match, job.request.messages, job.tokens, completions
    )
    return completions

  def interrupt(self) -> None:
    """Ends all replies, now and later."""
    self._is_closing.set()

  def close(self) -> None:
    """Waits for the thread, and publishes the conversations."""
    self.interrupt()
    self._thread.shutdown()
    self._conversations.publish_all()

  def _settings(self, request: ChatRequest, length: int) -> Settings:
    """Returns how replies to a prompt of some length are sampled."""
    left = self._max_context - length
    wanted = request.max_new_tokens
    if left < (wanted or 1):
      raise ApiError(
        f'the model reads at most {self._max_context} tokens; the messages '
        f'have {length}, and the reply may have {wanted or 1}',
        'messages',
        'context_length_exceeded',
      )
    defaults = self._defaults

    def value(name: str) -> Any:
      own = getattr(request, name)
      return defaults[name] if own is None else own

    sampling = Sampling(value('temperature'), defaults['top_k'], value('top_p'))
    # A seed is any number; random keys take 32 bits.
    drawn = int(self._rng.integers(1 << 32))
    seed = drawn if request.seed is None else request.seed % (1 << 32)
    stop_texts = (*self._stop_texts, *request.stop_texts)
    length = wanted or min(defaults['max_new_tokens'], left)
    return Settings(length, sampling, seed, stop_texts)
