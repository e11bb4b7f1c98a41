"""Runs of one question each, and all that is prepared of them."""

import json

from isft_jax.data.preparation import prepare


def rows(numbers):
  """Some give windows, some are set aside, some are held out."""
  for i in numbers:
    turns = [('user', f'What is {i}?'), ('assistant', 'It is. ' * (i % 7 + 1))]
    if i % 9 == 4:
      turns[0] = ('user', 'two\nlines')
    messages = [{'role': role, 'content': text} for role, text in turns]
    yield json.dumps({'id': f'row {i}', 'messages': messages})


def contents(folder) -> dict:
  """Every byte, and the report but for the time that it took."""
  found = {
    str(path.relative_to(folder)): path.read_bytes()
    for path in folder.rglob('*')
    if path.is_file()
  }
  report = json.loads(found.pop(prepare.REPORT))
  report.pop('seconds')
  return found | {'report': report}
