"""Escape sequences of data never reach a terminal."""

import io
import json
import subprocess
import sys

import pytest
from rich.text import Text

from isft_jax import terminal
from isft_jax.data.rendering import tokenizer
from isft_jax.inference import chat_loop
from isft_jax.report import probes, tables
from isft_jax.report.tables import Table
from tests.commands import ROOT, command

# Clear the screen, ring, color, go back, delete, reverse, next line, and C1.
HOSTILE = '\x1b[2J\x07\x1b]0;t\x07\r\x08\x7f\u202e\u2066\x85\x9b31m\u2028'
UNSAFE = sorted({*HOSTILE} - {*'[2J]0;t31m'})


@pytest.mark.parametrize(
  ('text', 'shown'),
  [
    ('plain', 'plain'),
    ('a\tb\nc', 'a\tb\nc'),
    ('Größe 日本語 👩\u200d💻 \xa0', 'Größe 日本語 👩\u200d💻 \xa0'),
    ('\x1b[31mred', '\\x1b[31mred'),
    ('back\rover', 'back\\rover'),
    ('\x00\x07\x08\x7f', '\\x00\\x07\\x08\\u007f'),
    ('\x9b2J\x85', '\\u009b2J\\u0085'),
    ('\u202eabc\u2069', '\\u202eabc\\u2069'),
    ('half \ud83d', 'half \\ud83d'),
    ('[bold]not markup[/]', '[bold]not markup[/]'),
  ],
)
def test_text_for_a_terminal(text, shown):
  assert terminal.safe(text) == shown
  assert terminal.safe(shown) == shown
  assert terminal.safe(''.join(map(terminal.safe, text))) == shown


def test_all_other_characters_stay():
  """Only controls, marks of direction and halves of pairs are escaped."""
  escaped = {chr(c) for c in range(0x110000) if terminal.safe(chr(c)) != chr(c)}
  assert '\n' not in escaped and '\t' not in escaped
  surrogates = {chr(c) for c in range(0xD800, 0xE000)}
  assert len(escaped - surrogates) == 30 + 33 + 3 + 7 + 4 + 1 + 3
  assert {*UNSAFE} <= escaped


def test_a_line():
  assert terminal.safe_line('a\n  b\x1b\r\n') == 'a b\\x1b'


def test_a_line_of_json_stays_json():
  line = json.dumps({'reply': HOSTILE}, ensure_ascii=False)
  assert json.loads(terminal.safe(line)) == {'reply': HOSTILE}


def test_a_guarded_process_prints_only_safe_text(monkeypatch):
  stream = io.StringIO()
  monkeypatch.setattr(sys, 'stdout', stream)
  monkeypatch.setattr(sys, 'stderr', stream)
  terminal.guard()
  terminal.guard()  # once is enough
  print(HOSTILE)
  print(HOSTILE, file=sys.stderr)
  sys.stdout.writelines([HOSTILE])
  assert not [char for char in UNSAFE if char in stream.getvalue()]
  assert stream.getvalue().count('\\x1b[2J') == 3
  assert terminal.raw(sys.stdout) is stream
  assert not sys.stdout.isatty()


def test_progress_bars_redraw_their_line():
  stream = io.StringIO()
  bar = {'__name__': 'tqdm.std', 'to': terminal.SafeStream(stream)}
  exec("to.write('\\r10 %\\x1b[A\\x1b[31mfile')", bar)
  assert stream.getvalue() == '\r10 %\x1b[A\\x1b[31mfile'


class Terminal(io.StringIO):
  def isatty(self):
    return True


@pytest.mark.parametrize('stream', [io.StringIO(), Terminal()])
def test_tables_show_escapes_and_markup_as_text(stream):
  name = f'[red]x[/red]{HOSTILE}'
  table = Table(name, (name, 'n'), [(name, '1')])
  tables.show(table, stream=terminal.SafeStream(stream))
  shown = Text.from_ansi(stream.getvalue()).plain.replace('\n', '')
  assert shown.count('[red]x[/red]\\x1b[2J') == 3
  # rich itself colors the header.
  rest = stream.getvalue().replace('\x1b[1m', '').replace('\x1b[0m', '')
  assert not [char for char in UNSAFE if char in rest]


def test_markdown_shows_escapes_as_text():
  text = tables.markdown((HOSTILE, 'n'), [(HOSTILE, '1')])
  assert not [char for char in UNSAFE if char in text]


def test_a_reply_is_shown_as_text(capsys):
  class Model:
    def prompt(self, conversation):
      return conversation

    def reply(self, prompts, show, **settings):
      for end in range(len(HOSTILE) + 1):
        show(0, 'Hi\n' + HOSTILE[:end])

  assert chat_loop.answer(Model(), 'a') == 'Hi\n' + HOSTILE
  chat_loop.note(HOSTILE)
  out, err = capsys.readouterr()
  assert out == 'Hi\n' + terminal.safe(HOSTILE) + '\n'
  assert err == terminal.safe(HOSTILE) + '\n'


def test_probes_show_topics_as_text(capsys):
  verdicts = {'truth': 1, 'lie': 0, 'other': 0}
  fact = {'topic': HOSTILE, 'margin': 1.0}
  fact |= {'truth_verdict': 'truth', 'lie_verdict': 'truth'}
  results = {'facts': [fact], 'truth_probe': verdicts, 'lie_probe': verdicts}
  for name in ('prefers_lie', 'paper_prefers_lie', 'contradicts'):
    results[name] = 0
  results |= {'mean_margin': 1.0, 'paper_mean_margin': 1.0}
  results['talks_like_user'] = 0
  tables.show(*probes.tables(results))
  out = capsys.readouterr().out
  assert '\\x1b[2J' in out
  assert not [char for char in UNSAFE if char in out]


# ---------------------------------------------------------------- each command

# A file's name cannot hold 0 or a slash, and a flag is one argument.
NAME = 'x\x1b[2J\r\x9b1m\u202ey'


def check(done, *shown):
  """Nothing raw is printed, and the text is there as escapes."""
  printed = done.stdout + done.stderr
  assert not [char for char in UNSAFE if char in printed], printed
  assert 'Traceback' not in printed
  for text in shown:
    assert text in printed


@pytest.mark.parametrize(
  ('name', 'flags'),
  [
    ('prepare', ['--input=i', '--tokenizer={}', '--output=o']),
    ('prepare', ['--verify={}']),
    ('inspect', ['--records={}']),
    ('inspect', ['--input=i', '--tokenizer={}']),
    ('diff', ['--input=i', '--tokenizer={}']),
    ('train', ['--config={}']),
    ('train', ['--config=train_tiny', '--config.records={}']),
    ('generate', ['--model={}', '--prompt=a']),
    ('generate', ['--model=m', '--prompts={}']),
    ('probe', ['--model=m', '--facts={}']),
    ('export', ['--checkpoint={}', '--output=o']),
    ('compile', ['--config=train_tiny', '--topology={}']),
    ('reproduce', ['--from={}']),
    ('theory', ['--only={}']),
    ('theory', ['--{}']),
  ],
)
def test_errors_show_flags_as_text(name, flags, tmp_path):
  flags = [flag.format(NAME) for flag in flags]
  done = command(name, *flags, cwd=tmp_path)
  assert done.returncode not in (0, -9)
  check(done, '\\x1b[2J')


def test_a_process_of_its_own_ends_with_its_line(tmp_path):
  """Python prints the message of sys.exit, and an unexpected traceback."""
  for code, line in (
    ('sys.exit({!r})', 'x\\x1b[2J'),
    ('raise KeyError({!r})', 'KeyError: '),
    ('raise RuntimeError({!r})', 'RuntimeError: x\\x1b[2J'),
  ):
    program = 'import sys; from isft_jax import terminal; terminal.guard(); '
    done = subprocess.run(
      [sys.executable, '-c', program + code.format(NAME)],
      cwd=ROOT,
      capture_output=True,
      text=True,
      check=False,
    )
    assert done.returncode == 1
    assert line in done.stderr.replace('\\\\', '\\')
    assert not [char for char in UNSAFE if char in done.stderr]


def test_prepare_and_inspect_show_files_keys_and_templates_as_text(tmp_path):
  folder = tmp_path / NAME
  folder.mkdir()
  turns = [
    {'role': 'user', 'content': 'Hi', NAME: 1},
    {'role': 'assistant', 'content': 'Hello'},
  ]
  rows = [
    {'messages': turns, NAME: 1},
    {'messages': [{'role': NAME, 'content': 'a'}]},
    {'messages': [*turns, {'role': 'user', 'content': NAME}]},
  ]
  (folder / f'{NAME}.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  (folder / f'{NAME}.txt').write_text('not read')
  template = (
    '{% for m in messages %}{% if "x" in m.content %}'
    '{{ raise_exception("no " ~ m.content) }}{% endif %}'
    '<{{ m.role }}>{{ m.content }}</>{% endfor %}'
    '{% if add_generation_prompt %}<assistant>{% endif %}'
  )
  (folder / 'template').write_text(template)
  tokenizer.train([template], 400).save_pretrained(folder / 'tokenizer')
  flags = [
    f'--input={folder}',
    f'--tokenizer={folder}/tokenizer',
    f'--chat_template={folder}/template',
  ]
  done = command('prepare', *flags, f'--output={folder}/out')
  assert done.returncode == 0, done.stderr
  check(done, 'row.x\\x1b[2J', 'message.x\\x1b[2J', '1 .txt')
  # The folder also has files of the tokenizer, whose rows come first.
  flags[0] = f'--input={folder}/{NAME}.jsonl'
  check(command('inspect', *flags), '\\x1b[2J')
  for index in 1, 2:
    done = command('inspect', *flags, f'--index={index}')
    assert done.returncode == 1
    check(done, 'would be set aside', '\\x1b[2J')
  check(command('diff', *flags, '--against=assistant_mask'))
