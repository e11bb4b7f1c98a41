"""Runs the example of docs/python_api.md on SmolLM2, and compares the outputs.

  python tests/benchmarks/api_page.py

It takes a few minutes on two cores. Lines of progress are left out. The program
exits with 1 if a block prints anything but the text that follows it.
tests/test_api.py runs the same blocks with random weights.
"""

import difflib
import os
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from tests.test_api import MARK, PAGE, ROOT, examples


def main():
  script = f'\nprint({MARK!r})\n'.join(code for code, _ in examples(PAGE))
  with tempfile.TemporaryDirectory() as folder:
    (pathlib.Path(folder) / 'docs').symlink_to(ROOT / 'docs')
    done = subprocess.run(
      [sys.executable, '-c', script],
      cwd=folder,
      env=os.environ | {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'},
      capture_output=True,
      text=True,
    )
  if done.returncode:
    sys.exit(done.stderr)
  lines = done.stdout.splitlines(keepends=True)
  shown = ''.join(line for line in lines if not line.startswith('  finetune '))
  printed = [block.lstrip('\n') for block in shown.split(MARK)]
  expected = [output for _, output in examples(PAGE)]
  if printed != expected:
    sys.exit('\n'.join(difflib.ndiff(expected, printed)))
  print(f'{len(expected)} blocks print what the page says')


if __name__ == '__main__':
  main()
