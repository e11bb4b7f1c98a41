"""Help for config fields, with the value, type and comment of each.

Types, values and comments are read from the dataclasses and their source, so
this help always matches the code.
"""

import ast
import dataclasses
import difflib
import inspect
import io
import shlex
import textwrap
import tokenize
from collections.abc import Collection, Iterator
from typing import Any

from isft_jax.config import RENAMED

WIDTH = 80  # columns


@dataclasses.dataclass(frozen=True)
class Field:
  """A field that a flag can set, as in --config.model.width=128."""

  path: str  # 'config.model.width'
  value: object  # its default in the config that is described
  type: str  # 'int', 'tuple[str, ...]'
  comment: str  # sentences; empty if the source has none


@dataclasses.dataclass(frozen=True)
class Section:
  """The fields of one dataclass in a config."""

  path: str  # 'config.model', or 'config' for the outermost
  owner: type  # the dataclass
  comment: str  # of the field that holds it, then the summary of the class
  fields: list[Field]  # without those that are dataclasses themselves


def describe(config: Any) -> str:
  """Returns the help of all fields of a config.

  A dataclass that a config contains more than once, such as a stage of
  training, is explained at its first occurrence.

  Args:
    config: a dataclass instance.

  Returns:
    Lines of at most 80 columns, with an empty line between sections.
  """
  blocks = []
  first: dict[type, str] = {}  # dataclass -> path of its first section
  for section in sections(config):
    explained = first.setdefault(section.owner, section.path)
    is_first = explained == section.path
    # The title of the section, at the margin.
    title = f'{section.path}: {section.comment}'
    if not is_first:
      title += f' Its fields are explained under {explained}.'
    lines = textwrap.wrap(title, WIDTH, break_on_hyphens=False)
    # Its fields: the flag indented by 2, its comment by 6.
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
  """Yields the Section of a dataclass, then those of its nested dataclasses.

  Args:
    config: a dataclass instance.
    path: the path of the dataclass.
    comment: the comment of the field that holds the dataclass.

  Yields:
    Sections in the order of the fields, depth first.
  """
  owner = type(config)
  comments = field_comments(owner)
  # Flags set leaves; nested dataclasses become sections of their own.
  leaves, groups = [], []
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    place = f'{path}.{field.name}'
    sentence = as_sentence(comments.get(field.name, ''))
    if dataclasses.is_dataclass(value):
      groups.append((value, place, sentence))
    else:
      leaves.append(Field(place, value, _type_name(field.type), sentence))
  # The first paragraph of the class docstring describes the section.
  summary = (inspect.getdoc(owner) or owner.__name__).split('\n\n')[0]
  comment = ' '.join([comment, *summary.split()]).strip()
  yield Section(path, owner, as_sentence(comment), leaves)
  for group in groups:
    yield from sections(*group)


def field_comments(owner: type) -> dict[str, str]:
  """Returns the comment of each field of a dataclass, read from its source.

  A comment precedes its field or ends the field's line:

    # Folder of the tokenizer that encoded the records. Empty: the one
    # beside them.
    tokenizer: str = ''
    epochs: int = 4  # over the records

  A field that a subclass declares again without a comment inherits the comment
  of the base class. Without source (a zipped package), no field has a comment.
  """
  comments: dict[str, str] = {}
  for base in reversed(owner.__mro__):
    if dataclasses.is_dataclass(base):
      comments |= _own_comments(base)
  return comments


def _own_comments(owner: type) -> dict[str, str]:
  try:
    source = textwrap.dedent(inspect.getsource(owner))
  except (OSError, TypeError):
    return {}
  # The parser drops comments, so the tokenizer collects them by line number.
  comments, full_lines = {}, set()  # line number -> comment; lines without code
  for token in tokenize.generate_tokens(io.StringIO(source).readline):
    if token.type == tokenize.COMMENT:
      comments[token.start[0]] = token.string.lstrip('# ')
      if token.line.lstrip().startswith('#'):
        full_lines.add(token.start[0])
  by_field = {}
  (tree,) = ast.parse(source).body
  for node in getattr(tree, 'body', ()):
    if not isinstance(node, ast.AnnAssign):
      continue
    # Comment lines directly above the field belong to it.
    start = node.lineno
    while start - 1 in full_lines:
      start -= 1
    lines = range(start, (node.end_lineno or node.lineno) + 1)
    text = ' '.join(comments[line] for line in lines if line in comments)
    if text:
      by_field[ast.unparse(node.target)] = text
  return by_field


def suggest(config: Any, name: str) -> list[str]:
  """Returns the flags of the fields that a name may refer to.

  Args:
    config: a dataclass instance.
    name: 'learning_rate' or 'optim.learning_rate', perhaps misspelled.

  Returns:
    Flags such as '--config.optim.learning_rate': all fields whose path ends
    with the name, or if none does, those whose last word is similar. An old
    name of a field counts as its name.
  """
  group, dot, last = name.rpartition('.')
  name = group + dot + RENAMED.get(last, last)
  paths = [field.path for part in sections(config) for field in part.fields]
  exact = [path for path in paths if path.endswith(f'.{name}')]
  if exact:
    return [f'--{path}' for path in exact]
  # No exact match: a misspelled last word, as in 'learning_rat'. The cutoff of
  # 0.75 leaves out words that only share an ending.
  last = name.rpartition('.')[2]
  leaves = {path.rpartition('.')[2] for path in paths}
  close = _closest(last, leaves, cutoff=0.75)
  return [f'--{p}' for p in paths if p.rpartition('.')[2] == close]


def _closest(word: str, names: Collection[str], cutoff: float = 0.6) -> str:
  """Returns the name, perhaps under its old name, that is most similar, or ''.

  Args:
    word: a misspelled name.
    names: the names of fields.
    cutoff: lowest similarity, from 0 to 1.
  """
  spellings = {old: new for old, new in RENAMED.items() if new in names}
  spellings |= {name: name for name in names}
  close = difflib.get_close_matches(word, sorted(spellings), 1, cutoff)
  return spellings[close[0]] if close else ''


def explain_unknown(config: Any, path: str) -> str | None:
  """Returns an error with a suggestion for a field that a config lacks.

  Args:
    config: a dataclass instance.
    path: the path of the field, as in 'config.model.layer'.

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
  close = f'{group}.{_closest(word, siblings)}{rest}'
  hints = [f'--{close}'] if close in known else []
  hint = did_you_mean(hints or suggest(config, words[-1]))
  hint = hint or f'it has {", ".join(siblings)}'
  return f'{group} has no field {word!r}; {hint}'


def did_you_mean(flags: list[str]) -> str:
  """Returns 'did you mean --FLAG?' with up to 4 flags; '' without flags."""
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
  """Returns a value quoted for a shell, a tuple in double quotes."""
  text = str(value)
  if isinstance(value, tuple) and not set('"$`\\!') & set(text):
    return f'"{text}"'
  return shlex.quote(text)
