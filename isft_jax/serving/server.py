"""Runs the web application until Ctrl-C or SIGTERM."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

from isft_jax.inference.chat_model import ChatModel
from isft_jax.serving.app import make_app
from isft_jax.serving.conversations import Conversations
from isft_jax.serving.prompts import PromptEncoder
from isft_jax.serving.service import ChatService
from isft_jax.serving.transcripts import Transcripts

# Context of models whose tokenizer does not name one.
_CONTEXT = 32_768
# Seconds between two searches for idle conversations.
_SHORTEST, _LONGEST = 0.05, 1.0
_PATIENCE = 5.0  # seconds for answers to clients when the server ends


def listen(host: str, port: int) -> socket.socket:
  """Returns a socket that listens.

  Args:
    host: address or name of this machine.
    port: TCP port; 0: a free one.

  Raises:
    ValueError: the port is taken, or the address is not of this machine.
  """
  try:
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    return socket.create_server((host, port), family=family)
  except OSError as error:
    raise ValueError(
      f'--host={host} --port={port}: {error.strerror or error}; stop what '
      'listens there, or name another --port or --host'
    ) from None


def default_context(chat_model: ChatModel) -> int:
  """Returns the context of the model's tokenizer, or 32,768 tokens."""
  length = chat_model.tokenizer.model_max_length
  # transformers has 1e30 for tokenizers that do not name one.
  return int(length) if 0 < length < 1 << 30 else _CONTEXT


def serve(
  listener: socket.socket,
  chat_model: ChatModel,
  model: str,
  transcripts: Transcripts | None,
  note: Callable[[str], None],
  *,
  defaults: Mapping[str, Any],
  stop_texts: Sequence[str],
  seed: int,
  max_context: int,
  max_request_bytes: int,
  idle_seconds: float,
  renew: Callable[[], ChatModel | None] = lambda: None,
) -> None:
  """Serves a model until Ctrl-C or SIGTERM.

  Args:
    listener: a listening socket; it is closed at the end.
    chat_model: the model.
    model: its name.
    transcripts: where the conversations are written; None: nowhere.
    note: prints a line.
    defaults, stop_texts, seed, max_context, renew: see `ChatService`.
    max_request_bytes: maximum size of the body of a request.
    idle_seconds: see `Conversations`.

  Raises:
    ValueError: the model has no chat template, or another process writes to the
      folder of transcripts.
  """
  encoder = PromptEncoder(chat_model)
  about = {'model': model, 'tokenizer': encoder.fingerprint}
  with (
    listener,
    transcripts.locked() if transcripts else contextlib.nullcontext(),
  ):
    conversations = Conversations(transcripts, about, idle_seconds)
    service = ChatService(
      chat_model,
      encoder,
      conversations,
      defaults,
      stop_texts,
      seed,
      max_context,
      renew,
    )
    host, port = listener.getsockname()[:2]
    app = make_app(
      service, model, encoder.template_names, host, max_request_bytes
    )
    shown = f'[{host}]' if ':' in host else host
    line = f'serves {model} at http://{shown}:{port}/v1; Ctrl-C ends it'
    asyncio.run(
      _serve(listener, app, service, conversations, idle_seconds, note, line)
    )


async def _serve(
  listener: socket.socket,
  app: web.Application,
  service: ChatService,
  conversations: Conversations,
  idle_seconds: float,
  note: Callable[[str], None],
  line: str,
) -> None:
  loop, stop = asyncio.get_running_loop(), asyncio.Event()

  def end(number: signal.Signals) -> None:
    # A second one ends the process at once.
    loop.remove_signal_handler(number)
    stop.set()

  for number in (signal.SIGINT, signal.SIGTERM):
    loop.add_signal_handler(number, end, number)
  # A client that leaves cancels its handler, and so its replies.
  runner = web.AppRunner(
    app,
    access_log=None,
    handler_cancellation=True,
    shutdown_timeout=_PATIENCE,
  )
  await runner.setup()
  try:
    await web.SockSite(runner, listener).start()
    note(line)
    is_failing = False
    pause = max(_SHORTEST, min(_LONGEST, idle_seconds / 4))
    while not stop.is_set():
      with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), pause)
      try:
        conversations.publish_idle()
        is_failing = False
      except OSError as error:  # a full disk: try again
        if not is_failing:
          note(f'warning: {error}; transcripts wait in the folder .open')
        is_failing = True
  finally:
    # Replies end first, so that their handlers can answer.
    service.interrupt()
    await runner.cleanup()
    service.close()
