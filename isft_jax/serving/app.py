"""The web application: routes, streams and errors in the form of OpenAI's API.

POST /v1/chat/completions      replies, also as a stream of events
GET  /v1/models                the name of the model
GET  /health
"""

import asyncio
import contextlib
import json
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web

from isft_jax.serving import request as request_lib
from isft_jax.serving.request import ApiError
from isft_jax.serving.sampler import Completion, Interrupted
from isft_jax.serving.service import ChatService, Job

_LOOPBACK = ('127.0.0.1', '::1', 'localhost')
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(
  service: ChatService,
  model: str,
  template_names: frozenset[str],
  host: str,
  max_request_bytes: int,
) -> web.Application:
  """Returns the web application.

  Args:
    service: what answers the requests.
    model: name of the model.
    template_names: names in its chat template.
    host: address that the server is bound to.
    max_request_bytes: maximum size of the body of a request.
  """
  created = int(time.time())

  async def chat(http_request: web.Request) -> web.StreamResponse:
    # A page in a browser can send other types without asking, so that any page
    # could put words into the transcripts.
    if http_request.content_type != 'application/json':
      raise ApiError(
        'the body must have the content type application/json', status=415
      )
    size = http_request.content_length
    if size is not None and size > max_request_bytes:
      raise web.HTTPRequestEntityTooLarge(max_request_bytes, size)
    body = await http_request.read()
    request = request_lib.parse(body, model, template_names)
    job = service.prepare(request)
    reply = _Reply(model, job)
    if request.stream:
      return await _stream(http_request, service, job, reply)
    return web.json_response(reply.whole(await service.run(job)))

  async def models(http_request: web.Request) -> web.Response:
    entry = {'id': model, 'object': 'model', 'created': created}
    entry['owned_by'] = 'isft_jax'
    return web.json_response({'object': 'list', 'data': [entry]})

  async def health(http_request: web.Request) -> web.Response:
    return web.json_response({'status': 'ok'})

  @web.middleware
  async def check_host(
    request: web.Request, handler: _Handler
  ) -> web.StreamResponse:
    # A page in a browser can give its own name the address 127.0.0.1.
    name = request.url.host
    if host in _LOOPBACK and name not in _LOOPBACK:
      raise ApiError(
        f'this server is only for {", ".join(_LOOPBACK)}; start it with '
        '--host to serve others',
        status=403,
      )
    return await handler(request)

  app = web.Application(
    middlewares=[_errors, check_host], client_max_size=max_request_bytes
  )
  app.router.add_post('/v1/chat/completions', chat)
  app.router.add_get('/v1/models', models)
  app.router.add_get('/health', health)
  return app


class _Reply:
  """The objects that answer one request."""

  def __init__(self, model: str, job: Job) -> None:
    self._fields = {
      'id': f'chatcmpl-{uuid.uuid4().hex}',
      'created': int(time.time()),
      'model': model,
    }
    self._prompt_tokens = len(job.tokens.ids)
    self._include_usage = job.request.include_usage

  def whole(self, completions: Sequence[Completion]) -> dict[str, Any]:
    """Returns the answer without a stream."""
    choices = [
      {
        'index': index,
        'message': {'role': 'assistant', 'content': each.text},
        'logprobs': None,
        'finish_reason': each.finish_reason,
      }
      for index, each in enumerate(completions)
    ]
    return {
      **self._fields,
      'object': 'chat.completion',
      'choices': choices,
      'usage': self._usage(completions),
    }

  def chunk(
    self, index: int, delta: dict[str, str], finish_reason: str | None = None
  ) -> dict[str, Any]:
    """Returns an event of a stream."""
    choice = {
      'index': index,
      'delta': delta,
      'logprobs': None,
      'finish_reason': finish_reason,
    }
    # With usage, all events have the field.
    usage = {'usage': None} if self._include_usage else {}
    return {**self._of_stream(), 'choices': [choice], **usage}

  def usage_chunk(self, completions: Sequence[Completion]) -> dict[str, Any]:
    """Returns the last event of a stream, with the numbers of tokens."""
    usage = self._usage(completions)
    return {**self._of_stream(), 'choices': [], 'usage': usage}

  def _of_stream(self) -> dict[str, Any]:
    return {**self._fields, 'object': 'chat.completion.chunk'}

  def _usage(self, completions: Sequence[Completion]) -> dict[str, int]:
    completion_tokens = sum(len(each.ids) for each in completions)
    return {
      'prompt_tokens': self._prompt_tokens,
      'completion_tokens': completion_tokens,
      'total_tokens': self._prompt_tokens + completion_tokens,
    }


async def _stream(
  http_request: web.Request, service: ChatService, job: Job, reply: _Reply
) -> web.StreamResponse:
  """Sends replies as server-sent events while they grow."""
  response = web.StreamResponse(
    headers={'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache'}
  )
  await response.prepare(http_request)

  async def send(event: dict[str, Any]) -> None:
    await response.write(f'data: {json.dumps(event)}\n\n'.encode())

  # Texts so far, from the thread that samples; None at the end.
  texts: asyncio.Queue[tuple[int, str] | None] = asyncio.Queue()
  task = asyncio.create_task(
    service.run(job, lambda index, text: texts.put_nowait((index, text)))
  )
  task.add_done_callback(lambda _: texts.put_nowait(None))
  sent = [''] * job.request.number
  try:
    for index in range(job.request.number):
      await send(reply.chunk(index, {'role': 'assistant', 'content': ''}))
    while (item := await texts.get()) is not None:
      index, text = item
      if text != sent[index]:
        new = text[len(sent[index]) :]
        await send(reply.chunk(index, {'content': new}))
        sent[index] = text
    completions = await task
    # The conversation is remembered before its client can continue it.
    for index, each in enumerate(completions):
      if new := each.text[len(sent[index]) :]:
        await send(reply.chunk(index, {'content': new}))
      await send(reply.chunk(index, {}, each.finish_reason))
    if job.request.include_usage:
      await send(reply.usage_chunk(completions))
    await response.write(b'data: [DONE]\n\n')
  except ConnectionError:  # the client has left
    pass
  except Exception as error:  # too late for a status
    with contextlib.suppress(ConnectionError):
      await send({'error': _as_api_error(error).fields})
  finally:
    task.cancel()
  return response


@web.middleware
async def _errors(
  request: web.Request, handler: _Handler
) -> web.StreamResponse:
  """Returns all errors as OpenAI's error objects."""
  try:
    return await handler(request)
  except Exception as error:
    api_error = _as_api_error(error)
    headers = {}
    if isinstance(error, web.HTTPMethodNotAllowed):
      headers['Allow'] = error.headers['Allow']
    return web.json_response(
      {'error': api_error.fields}, status=api_error.status, headers=headers
    )


def _as_api_error(error: Exception) -> ApiError:
  if isinstance(error, ApiError):
    return error
  if isinstance(error, web.HTTPRequestEntityTooLarge):
    return ApiError(
      'the body of the request is larger than --max_request_bytes of this '
      'server',
      code='request_too_large',
      status=413,
    )
  if isinstance(error, web.HTTPException):
    return ApiError(
      f'{error.reason}: this server has POST /v1/chat/completions, GET '
      '/v1/models and GET /health',
      status=error.status,
    )
  if isinstance(error, Interrupted):
    return ApiError('the server stops', status=503, type='server_error')
  if not isinstance(error, ConnectionError):  # of a client that has left
    traceback.print_exception(error)
  return ApiError(
    f'{type(error).__name__} in the server; its log has more',
    status=500,
    type='server_error',
  )
