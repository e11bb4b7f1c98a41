"""Help for the fields of a config: value, type and comment of each.

Types, values and comments are read from the dataclasses and their source, so
this help cannot go stale.
"""

import ast
import dataclasses
import difflib
import inspect
import io
import shlex
import textwrap
import tokenize
from collections.abc import Iterator
from typing import Any

WIDTH = 80  # columns


@dataclasses.dataclass(frozen=True)
class Field:
  """A field that a flag can set, as in --config.model.width=128."""

  path: str  # 'config.model.width'
  value: object
  type: str
  comment: str  # sentences; empty if the source has none


@dataclasses.dataclass(frozen=True)
class Section:
  """The fields of one dataclass in a config."""

  path: str  # 'config.model', or 'config' for the outermost
  owner: type
  comment: str
  fields: list[Field]


def describe(config: Any) -> str:
  """Returns the help of all fields of a config.

  A dataclass that a config contains more than once (a stage of training, say)
  is explained where it comes first.

  Args:
    config: a dataclass instance.
  """
  blocks = []
  first: dict[type, str] = {}  # dataclass -> path of its first section
  for section in sections(config):
    explained = first.setdefault(section.owner, section.path)
    is_first = explained == section.path
    title = f'{section.path}: {section.comment}'
    if not is_first:
      title += f' Its fields are explained under {explained}.'
    lines = textwrap.wrap(title, WIDTH, break_on_hyphens=False)
    for field in section.fields:
      head = f'--{field.path}={_quoted(field.value)} ({field.type})'
      lines += _wrap(head, 2, 10)
      if is_first:
        lines += _wrap(field.comment, 6, 6)
    blocks.append('\n'.join(lines))
  return '\n\n'.join(blocks)


def sections(
  config: Any, path: str = 'config', comment: str = ''
) -> Iterator[Section]:
  """Yields the Section of a dataclass, then those of dataclasses in it.

  Args:
    config: a dataclass instance.
    path: its own path.
    comment: that of the field that holds it.
  """
  owner = type(config)
  comments = field_comments(owner)
  leaves, groups = [], []
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    place = f'{path}.{field.name}'
    sentence = as_sentence(comments.get(field.name, ''))
    if dataclasses.is_dataclass(value):
      groups.append((value, place, sentence))
    else:
      leaves.append(Field(place, value, _type_name(field.type), sentence))
  summary = (inspect.getdoc(owner) or owner.__name__).split('\n\n')[0]
  comment = ' '.join([comment, *summary.split()]).strip()
  yield Section(path, owner, as_sentence(comment), leaves)
  for group in groups:
    yield from sections(*group)


def field_comments(owner: type) -> dict[str, str]:
  """Returns the comment of each field of a dataclass, read from its source.

  A comment stands in the lines above its field, or behind it:

    # Folder of the tokenizer that encoded the records. Empty: the one
    # beside them.
    tokenizer: str = ''
    epochs: int = 4  # over the records

  A field that a subclass declares again without a comment keeps the one of the
  base class. Without source (a zipped package), no field has a comment.
  """
  found: dict[str, str] = {}
  for base in reversed(owner.__mro__):
    if dataclasses.is_dataclass(base):
      found |= _own_comments(base)
  return found


def _own_comments(owner: type) -> dict[str, str]:
  try:
    source = textwrap.dedent(inspect.getsource(owner))
  except (OSError, TypeError):
    return {}
  comments, full_lines = {}, set()  # line number -> comment; lines without code
  for token in tokenize.generate_tokens(io.StringIO(source).readline):
    if token.type == tokenize.COMMENT:
      comments[token.start[0]] = token.string.lstrip('# ')
      if token.line.lstrip().startswith('#'):
        full_lines.add(token.start[0])
  found = {}
  (tree,) = ast.parse(source).body
  for node in getattr(tree, 'body', ()):
    if not isinstance(node, ast.AnnAssign):
      continue
    start = node.lineno
    while start - 1 in full_lines:
      start -= 1
    lines = range(start, (node.end_lineno or node.lineno) + 1)
    text = ' '.join(comments[line] for line in lines if line in comments)
    if text:
      found[ast.unparse(node.target)] = text
  return found


def suggest(config: Any, name: str) -> list[str]:
  """Returns the flags of the fields that a name may stand for.

  Args:
    config: a dataclass instance.
    name: 'learning_rate' or 'optim.learning_rate', perhaps misspelled.

  Returns:
    Flags such as '--config.optim.learning_rate': all fields whose path ends
    with the name, else those whose last word is nearly the same.
  """
  paths = [field.path for part in sections(config) for field in part.fields]
  exact = [path for path in paths if path.endswith(f'.{name}')]
  if exact:
    return [f'--{path}' for path in exact]
  last = name.rpartition('.')[2]
  leaves = {path.rpartition('.')[2] for path in paths}
  close = difflib.get_close_matches(last, sorted(leaves), n=1, cutoff=0.75)
  return [f'--{p}' for p in paths if close and p.endswith(f'.{close[0]}')]


def explain_unknown(config: Any, path: str) -> str | None:
  """Returns what to do about a field that a config does not have.

  Args:
    config: a dataclass instance.
    path: of the field, as in 'config.model.layer'.

  Returns:
    One line, or None if the field exists.
  """
  groups, leaves = [], []
  for section in sections(config):
    groups.append(section.path)
    leaves += [field.path for field in section.fields]
  known = [*leaves, *groups]
  if path in known:
    return None
  # The first word that is wrong, the group that it is in, and what follows:
  # 'modle' in 'config', then '.width', of 'config.modle.width'.
  words = path.split('.')
  size = 1
  while '.'.join(words[: size + 1]) in groups:
    size += 1
  group, word = '.'.join(words[:size]), words[size]
  rest = ''.join(f'.{each}' for each in words[size + 1 :])
  if f'{group}.{word}' in leaves:
    return f'{group}.{word} is one value: set it with --{group}.{word}=VALUE'
  siblings = [
    name.rpartition('.')[2]
    for name in known
    if name.rpartition('.')[0] == group
  ]
  hints = [
    f'--{group}.{each}{rest}'
    for each in difflib.get_close_matches(word, siblings, n=1)
    if f'{group}.{each}{rest}' in known
  ]
  hint = did_you_mean(hints or suggest(config, words[-1]))
  hint = hint or f'it has {", ".join(siblings)}'
  return f'{group} has no field {word!r}; {hint}'


def did_you_mean(flags: list[str]) -> str:
  """Returns the question for a user who misspelled a flag; '' without flags."""
  return f'did you mean {" or ".join(flags[:4])}?' if flags else ''


def as_sentence(text: str) -> str:
  """Returns a comment with a capital letter and a full stop."""
  if not text:
    return ''
  return text[0].upper() + text[1:] + ('' if text.endswith(('.', '?')) else '.')


def _wrap(text: str, indent: int, next_indent: int) -> list[str]:
  return textwrap.wrap(
    text,
    WIDTH,
    initial_indent=' ' * indent,
    subsequent_indent=' ' * next_indent,
    break_on_hyphens=False,
    break_long_words=False,
  )


def _type_name(annotation: Any) -> str:
  if isinstance(annotation, str):
    return annotation
  return inspect.formatannotation(annotation)


def _quoted(value: object) -> str:
  """Returns a value as a shell takes it, a tuple in double quotes."""
  text = str(value)
  if isinstance(value, tuple) and not set('"$`\\!') & set(text):
    return f'"{text}"'
  return shlex.quote(text)
