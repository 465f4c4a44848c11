"""Runs iris.ipynb from the top, and writes what came out into it.

    python rerun.py            the programs and the package have to be there: the notebook's first cell says how
    python rerun.py --check    writes nothing: does the code still work with this package, and are the outputs those of a whole run?
"""

import argparse
import os
import tempfile
from pathlib import Path

import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient

FILE = Path(__file__).with_name("iris.ipynb")

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--check", action="store_true")
check = parser.parse_args().check

notebook = nbformat.read(FILE, as_version=4)
code = [cell for cell in notebook.cells if cell.cell_type == "code"]
if check:
    counts = [cell.execution_count for cell in code]
    assert counts == list(range(1, len(code) + 1)), f"not run from the top to the end: {counts}"
    os.environ["REPETITIONS"] = "1"
programs = FILE.parents[2] / "target" / "release"
os.environ["PATH"] = f"{os.environ['PATH']}{os.pathsep}{programs}"
with tempfile.TemporaryDirectory() as folder:
    # Not over TCP, where others on this machine could read along.
    kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{folder}/kernel")
    NotebookClient(notebook, km=kernel, timeout=600, record_timing=False).execute()
if not check:
    nbformat.write(notebook, FILE)
print(f"{FILE.name}: {len(code)} cells ran")
