"""isft-generate --serve as a process, with OpenAI's own client."""

import contextlib
import http.client
import json
import os
import re
import signal
import time

from tests.commands import start
from tests.fixtures import import_or_skip

import_or_skip('aiohttp')
openai = import_or_skip('openai')

PATIENCE = 120  # seconds, of which most are for compilation on a busy machine


class Server:
  """A running server."""

  def __init__(self, running):
    self.running = running
    self.name, self.url = self.wait_for(
      r'serves (\S+) at (http://\S+)/v1; Ctrl-C'
    )
    self.client = openai.OpenAI(
      base_url=f'{self.url}/v1', api_key='none', max_retries=0, timeout=PATIENCE
    )

  def wait_for(self, pattern):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and self.running.process.is_alive():
      path = self.running.outputs[1]
      if path.exists() and (match := re.search(pattern, path.read_text())):
        return match.groups()
      time.sleep(0.05)
    raise AssertionError(self.running.outputs[1].read_text())

  def chat(self, *messages, **fields):
    return self.client.chat.completions.create(
      model=self.name, messages=messages, **fields
    )

  def request(self, method, path, body=None, **headers):
    """Returns status, headers and JSON of a bare HTTP request."""
    address = self.url.removeprefix('http://')
    connection = http.client.HTTPConnection(address, timeout=PATIENCE)
    with contextlib.closing(connection):
      connection.request(method, path, body, headers)
      response = connection.getresponse()
      return response.status, response.headers, json.loads(response.read())

  def end(self, number=signal.SIGTERM):
    os.kill(self.running.process.pid, number)
    return self.running.wait(PATIENCE)


@contextlib.contextmanager
def serving(*flags):
  """A server on any free port, for a block."""
  with start('generate', '--serve', '--port=0', *flags) as running:
    yield Server(running)
